// The organiser's page.

import { live } from "./live.js";

live("organiser", {});
