// The attendee's page.

import { live } from "./live.js";

live("attendee", {});
