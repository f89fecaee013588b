// The keys of every page. What a key does stands in the page: `data-key` on what it presses,
// `data-go` on where `g` and it lead. Rows need nothing: whatever is in a list can be reached.
"use strict";

const ROWS = "main [data-row], main .table:not(.pairs) tbody tr";
const GO_MS = 1500; // after `g`, the next key chooses the page for so long

const isShown = (element) => element.checkVisibility();
const rowAt = (element) => element?.closest(ROWS);

// What focus lands on in a row: its link, or what else can be pressed, or the row itself.
function focusRow(row) {
  const goal = find(".row-link", row) ?? all("a[href], button", row).find(isShown) ?? row;
  if (goal === row) row.tabIndex = -1;
  goal.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const rows = all(ROWS).filter(isShown), at = rows.indexOf(rowAt(document.activeElement));
  const next = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)];
  if (next) focusRow(next);
}

function replay(action) {
  const form = make("form", { method: "post", action, hidden: true });
  form.dataset.confirm = "Replay this event? Jobs that have not succeeded run again from the raw body.";
  form.dataset.askReason = "";
  const once = find("input[name=once]"); // of another form of this page: its path makes it another form's
  if (once) form.append(once.cloneNode());
  document.body.append(form);
  form.requestSubmit();
}

// What a key presses: in the row that has the focus, or else on the page outside of rows.
function pressedBy(key) {
  const named = all("[data-key]").filter((element) => element.dataset.key === key && isShown(element));
  const row = rowAt(document.activeElement);
  return named.find((element) => row?.contains(element)) ?? named.find((element) => !rowAt(element));
}

function search() {
  const field = find("[data-search]");
  if (field) field.select();
  else location.assign("/events#search");
}

// ---- what the keys are: in titles, and in the help

const labelOf = (element) => element.dataset.keyLabel ?? element.textContent.trim().replace(/\s+/g, " ");

function tellKeys(within) {
  for (const element of all("[data-key]:not([title])", within)) element.title = `Key: ${element.dataset.key}`;
  for (const element of all("[data-key]", within)) element.setAttribute("aria-keyshortcuts", element.dataset.key);
  for (const link of all("[data-go]", within)) link.title = `Keys: g ${link.dataset.go}`;
}

function showHelp() {
  const found = new Map();
  for (const element of all("[data-key]").filter(isShown)) {
    const of = rowAt(element) ? " (of the row)" : "";
    found.set(`${element.dataset.key}${of}`, [element.dataset.key, `${labelOf(element)}${of}`]);
  }
  const pages = all("[data-go]").map((link) => [`g ${link.dataset.go}`, link.firstChild.textContent.trim()]);
  for (const [name, entries] of [["page", [...found.values()]], ["go", pages]]) {
    const list = find(`[data-keys-of="${name}"]`);
    list.replaceChildren(...entries.flatMap(([keys, textContent]) => {
      const term = make("dt");
      term.append(...keys.split(" ").flatMap((key) => [make("kbd", { textContent: key }), " "]));
      return [term, make("dd", { textContent })];
    }));
    list.closest("section").hidden = !entries.length;
  }
  find("#help").showModal();
}

// ---- pressing

let goesUntil = 0;

function press(event) {
  const typing = event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select");
  if (event.key === "Escape") return typing?.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
  const going = event.timeStamp < goesUntil && find(`[data-go="${CSS.escape(event.key)}"]`);
  goesUntil = event.key === "g" && !going ? event.timeStamp + GO_MS : 0;
  const row = rowAt(document.activeElement), bar = document.activeElement?.closest("[data-bar]");
  const pressed = pressedBy(event.key);
  const act = going ? () => going.click() : {
    "/": search,
    "?": showHelp,
    j: () => move(1),
    k: () => move(-1),
    g: () => {},
    "[": () => find("main a[rel=prev]")?.click(),
    "]": () => find("main a[rel=next]")?.click(),
    ...(bar && {
      ArrowLeft: () => stepBar(bar, -1, event.shiftKey),
      ArrowRight: () => stepBar(bar, 1, event.shiftKey),
      z: () => zoomAt(bar),
    }),
    x: row && (() => find("input[name=id]", row)?.click()),
    r: row?.dataset.replay && document.body.dataset.role === "operator" && (() => replay(row.dataset.replay)),
  }[event.key] || (pressed && (() => (pressed.matches("input, textarea") ? pressed.focus() : pressed.click())));
  if (!act) return;
  event.preventDefault();
  act();
}

addEventListener("keydown", press);
tellKeys(document);
if (location.hash === "#search") find("[data-search]")?.select();
