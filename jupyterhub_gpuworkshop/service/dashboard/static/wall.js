// The wall.

import { live } from "./live.js";

live("wall", {});
