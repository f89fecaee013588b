// Completes what is typed into a search field: filters, and the values that there are. A combobox
// with a list box (WAI-ARIA). Without it the field is a field.
"use strict";

const SHOWN = 12;
// The part that the caret is in: `-`, a name, and a value if there is a colon.
const PART = /(?:^|\s)(-?)([^\s":]*)(?::(?:"((?:[^"\\]|\\.)*)|([^\s"]*)))?$/;

function completes(field) {
  const list = document.createElement("ul");
  list.className = "completions";
  list.id = "completions";
  list.role = "listbox";
  list.ariaLabel = "What can be typed";
  list.hidden = true;
  field.after(list);
  for (const [name, value] of Object.entries({
    role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false",
  })) field.setAttribute(name, value);

  let words = null, active = -1;
  const load = () => (words ??= fetch(field.dataset.search).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null));

  // What fits the part at the caret: where it begins, and what would stand there instead.
  function options({ filters, values }) {
    const typed = field.value.slice(0, field.selectionStart), [part, minus, name, quoted, plain] = typed.match(PART) ?? [];
    if (part === undefined) return [];
    const value = quoted ?? plain;
    const begin = typed.length - part.trimStart().length;
    if (value === undefined) {
      return Object.keys(filters).filter((filter) => filter.startsWith(name.toLowerCase()))
        .map((filter) => ({ begin, text: `${minus}${filter}:`, label: `${filter}:`, hint: filters[filter] }));
    }
    const wanted = value.toLowerCase();
    return (values[name.toLowerCase()] ?? []).filter((each) => each.toLowerCase().includes(wanted) && each !== value)
      .map((each) => ({ begin, text: `${minus}${name}:${spelled(each)} `, label: each, hint: "" }));
  }
  const spelled = (value) => (/[\s"]/.test(value) ? `"${value.replace(/(["\\])/g, "\\$1")}"` : value);

  function close() {
    list.hidden = true;
    active = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  let found = [];
  async function show() {
    const known = await load();
    if (!known || document.activeElement !== field) return close();
    found = options(known).slice(0, SHOWN);
    if (!found.length) return close();
    list.replaceChildren(...found.map(({ label, hint }, at) => {
      const row = document.createElement("li"), name = document.createElement("span"), says = document.createElement("span");
      Object.assign(row, { id: `completion-${at}`, role: "option", ariaSelected: "false" });
      Object.assign(name, { className: "mono", textContent: label, dir: "auto" });
      Object.assign(says, { className: "faint", textContent: hint });
      row.append(name, says);
      row.onpointerdown = (event) => { event.preventDefault(); take(at); };
      return row;
    }));
    list.hidden = false;
    active = -1;
    field.setAttribute("aria-expanded", "true");
    field.removeAttribute("aria-activedescendant");
  }

  function mark(at) {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = (at + found.length) % found.length;
    list.children[active].setAttribute("aria-selected", "true");
    list.children[active].scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", list.children[active].id);
  }

  function take(at) {
    const { begin, text } = found[at], rest = field.value.slice(field.selectionStart).replace(/^\S*\s?/, "");
    field.value = field.value.slice(0, begin) + text + rest;
    field.setSelectionRange(begin + text.length, begin + text.length);
    field.focus();
    if (text.endsWith(":")) show();
    else close();
  }

  field.addEventListener("input", () => (field.value.slice(0, field.selectionStart).match(/\S$/) ? show() : close()));
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const isOpen = !list.hidden;
    const act = {
      ArrowDown: () => (isOpen ? mark(active + 1) : show()),
      ArrowUp: isOpen && (() => mark(active < 0 ? -1 : active - 1)),
      // What was opened with ↓ before anything is typed keeps nobody in the field.
      Tab: isOpen && !event.shiftKey && (active >= 0 || /\S$/.test(field.value.slice(0, field.selectionStart))) && (() => take(Math.max(active, 0))),
      Enter: isOpen && active >= 0 && (() => take(active)),
      Escape: isOpen && close,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
}

for (const field of document.querySelectorAll("[data-search]")) completes(field);
