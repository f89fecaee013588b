// The console's own script. Every page can be read without it.
"use strict";

const root = document.documentElement;
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

// ---- theme: at once, before the first paint, so that nobody is blinded at night

const systemTheme = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
let stored = {}; // where storage is forbidden, the choice lasts as long as the page
try { stored = localStorage; } catch { /* as said */ }
root.dataset.script = "";
if (stored.theme) root.dataset.theme = stored.theme;

function toggleTheme() {
  const theme = (root.dataset.theme || systemTheme()) === "dark" ? "light" : "dark";
  root.dataset.theme = stored.theme = theme;
  // Who is back at what the system wants, follows the system from then on.
  if (theme === systemTheme()) delete stored.theme;
}

// ---- times, in the viewer's zone

const spell = (options) => new Intl.DateTimeFormat("en-GB", { hourCycle: "h23", ...options });
const HOUR = { hour: "2-digit", minute: "2-digit" }, SECOND = { ...HOUR, second: "2-digit" };
const DAY = { day: "numeric", month: "short" };
const spelled = {
  minute: spell(HOUR), day: spell(DAY), clock: spell(SECOND), dated: spell({ ...DAY, ...SECOND }),
  full: spell({ ...DAY, year: "numeric", ...SECOND, timeZoneName: "short" }),
};
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function spellTime(moment, kind) {
  if (kind !== "relative") {
    // What was not today needs its day.
    const other = kind === "clock" && moment.toDateString() !== new Date().toDateString();
    return spelled[other ? "dated" : kind].format(moment);
  }
  const seconds = (Date.now() - moment) / 1000;
  const found = UNITS.find(([, length]) => Math.abs(seconds) >= length);
  if (!found) return "now";
  const text = `${Math.floor(Math.abs(seconds) / found[1])} ${found[0]}`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

function localise(within) {
  for (const each of all("[data-time]", within)) {
    each.textContent = spellTime(new Date(each.getAttribute("datetime") || each.dataset.at), each.dataset.time);
  }
}

// ---- charts: the values where the pointer is

function showTip({ target, clientX, clientY }) {
  let tip = find(".tip");
  const slot = target.closest?.(".chart :is(.slot, [data-bar])");
  if (!slot) return tip?.remove();
  // Kept apart: the browser would show a title as well, after a second.
  const title = find("title", slot);
  if (title) slot.dataset.tip = title.textContent.split("\n").slice(1).join("\n");
  title?.remove();
  if (!tip) document.body.append(tip = make("div", { className: "tip" }));
  tip.textContent = `${spelled.dated.format(new Date(slot.dataset.at))}\n${slot.dataset.tip}`;
  tip.style.left = `${Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(clientY - tip.offsetHeight - 10, 8)}px`;
}

// ---- saying and copying

function toast(textContent) {
  const box = make("div", { className: "toast is-error", textContent });
  if (find("#toasts").lastElementChild?.textContent !== textContent) find("#toasts").append(box);
  setTimeout(() => box.remove(), 6000);
}

function textOf({ dataset }) {
  if ("copyAddress" in dataset) return location.href;
  return dataset.copy ?? find(dataset.copyFrom).textContent;
}

async function copy(button) {
  const text = textOf(button);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS there is no clipboard to write to, but what is selected can be copied.
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) return toast("The browser does not let this page copy.");
  }
  button.classList.add("is-done");
  setTimeout(() => button.classList.remove("is-done"), 1200);
}

// ---- forms that ask first

let sure = null;
function askFirst(event) {
  const { target: form, submitter } = event;
  const question = submitter?.dataset.confirm ?? form.dataset.confirm;
  if (!question || sure === form) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const dialog = find("#confirm"), field = find(".field", dialog), reason = find("input", field);
  find("#confirm-text").textContent = question;
  field.hidden = !("askReason" in form.dataset);
  reason.value = dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    if (!field.hidden) form.append(make("input", { type: "hidden", name: "reason", value: reason.value }));
    sure = form;
    form.requestSubmit(submitter);
    sure = null;
  };
  dialog.showModal();
  (field.hidden ? find("[value=yes]", dialog) : reason).focus();
}

// A form is sent once, however often it is clicked; a page that comes back may send it again.
let sent = new WeakSet(), isSending = false;
function sendOnce(event) {
  const { target: form, submitter } = event;
  if (event.defaultPrevented || form.method !== "post") return;
  if (sent.has(form)) return event.preventDefault();
  sent.add(form);
  isSending = true;
  submitter?.setAttribute("aria-busy", "true");
}

function mayBeSent() {
  sent = new WeakSet();
  isSending = false;
  for (const button of all("[aria-busy]")) button.removeAttribute("aria-busy");
}

// ---- lists

function countSelected(form) {
  const boxes = all("input[name=id]", form), chosen = boxes.filter((box) => box.checked).length;
  const actions = find(".needs-selection", form), whole = find("[data-select-all]", form);
  if (!actions) return;
  find("[data-selected]", form).textContent = `${chosen} selected`;
  actions.classList.toggle("has-selection", chosen > 0);
  whole.checked = chosen > 0 && chosen === boxes.length;
  whole.indeterminate = chosen > 0 && chosen < boxes.length;
}

// ---- the live tail

const MOST_ROWS = 500;

function tail(list) {
  const state = find("[data-tail-state]"), button = find("[data-tail-pause]"), held = [];
  let paused = false;
  const say = (name, text) => { state.dataset.state = name; state.textContent = text; };
  const add = (innerHTML) => {
    for (const row of [...make("template", { innerHTML }).content.children]) {
      if (row.id && document.getElementById(row.id)) continue; // sent again after a reconnection
      row.classList.add("fresh");
      localise(row);
      list.prepend(row);
    }
    while (list.children.length > MOST_ROWS) list.lastElementChild.remove();
  };
  const stream = new EventSource(list.dataset.tail);
  stream.onopen = () => paused || say("on", "connected");
  stream.onerror = () => say("away", stream.readyState === EventSource.CLOSED
    ? "not connected: load the page again" : "not connected: trying again");
  stream.onmessage = ({ data }) => {
    if (!paused) return add(data);
    if (held.push(data) > MOST_ROWS) held.shift();
    say("paused", `paused, ${held.length < MOST_ROWS ? "" : "at least "}${held.length} held back`);
  };
  button.onclick = () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    if (!paused) held.splice(0).forEach(add);
    say(paused ? "paused" : "on", paused ? "paused" : "connected");
  };
}

// ---- all of it

addEventListener("submit", askFirst, true);
addEventListener("submit", sendOnce);
addEventListener("pointermove", showTip);
addEventListener("change", ({ target }) => {
  const form = target.closest("[data-bulk]");
  if (!form) return;
  if ("selectAll" in target.dataset) for (const box of all("input[name=id]", form)) box.checked = target.checked;
  countSelected(form);
});
addEventListener("click", ({ target }) => {
  if (target.closest("[data-theme-toggle]")) toggleTheme();
  const button = target.closest("[data-copy], [data-copy-from], [data-copy-address]");
  if (button) copy(button);
});
addEventListener("DOMContentLoaded", () => {
  localise(document);
  all("[data-tail]").forEach(tail);
  find(".nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  setInterval(() => document.hidden || localise(document), 5000);
});
// Not only when it loads: a page that the browser kept comes back with its boxes as they were left.
addEventListener("pageshow", () => {
  all("[data-bulk]").forEach(countSelected);
  mayBeSent();
});
