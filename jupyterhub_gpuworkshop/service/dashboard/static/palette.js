// Which colour is whose, on one device: it stays while its attendee does.

const COLOURS = 8;
// On this one alone dark words cannot be read.
const DARK = 5;
const GIVEN = new Map();

/** Return a number for each of `names` on `device`; 8 and more are patterned, too. */
export function colours(device, names) {
  let given = GIVEN.get(device);
  if (!given) GIVEN.set(device, (given = new Map()));
  for (const name of given.keys()) if (!names.includes(name)) given.delete(name);
  const taken = new Set(given.values());
  for (const name of names) {
    if (given.has(name)) continue;
    let free = 0;
    while (taken.has(free)) free += 1;
    taken.add(free);
    given.set(name, free);
  }
  return given;
}

/** Give a node the colour of a number. */
export function paint(node, number) {
  const colour = number === undefined ? "var(--nobody)" : `var(--who-${number % COLOURS})`;
  if (node.style.getPropertyValue("--colour") !== colour) {
    node.style.setProperty("--colour", colour);
  }
  const ink = number !== undefined && number % COLOURS === DARK ? "#ffffff" : "";
  if (node.style.getPropertyValue("--ink") !== ink) node.style.setProperty("--ink", ink);
  node.classList.toggle("again", number !== undefined && number >= COLOURS);
}
