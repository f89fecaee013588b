// Zoom: what is dragged over in a chart, or chosen with Shift and arrows, is the page's time then.
"use strict";

let drag = null; // {area, from, to}: which slots of which chart the pointer is dragged over
let chosen = null; // the same, by the keyboard
let dragged = false; // the click that ends a drag opens nothing

const slots = (area) => all(".slot", area);
const areaOf = (element) => element.closest?.(".chart[data-span] .area");

const spanOf = (area) => Number(area.closest(".chart").dataset.span);
const LEAST_S = 60; // nothing is counted by less than a minute

function slotAt(area, x) {
  const { left, width } = area.getBoundingClientRect(), count = slots(area).length;
  return Math.min(Math.max(Math.floor((x - left) / width * count), 0), count - 1);
}

function shade(area, from, to) {
  find(".zooming")?.remove();
  const [first, last] = [Math.min(from, to), Math.max(from, to)], share = 100 / slots(area).length;
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const place = { class: "zooming", x: `${first * share}%`, y: 0, width: `${(last - first + 1) * share}%`, height: 128 };
  for (const [name, value] of Object.entries(place)) box.setAttribute(name, value);
  area.append(box);
}

function zoom({ area, from, to }) {
  const places = slots(area), span = spanOf(area) * 1000;
  const [first, last] = [places[Math.min(from, to)], places[Math.max(from, to)]];
  const url = new URL(location);
  url.hash = "";
  url.searchParams.delete("range");
  url.searchParams.set("since", first.dataset.at);
  url.searchParams.set("until", new Date(Date.parse(last.dataset.at) + span).toISOString());
  location.assign(url);
}

// ---- with the keyboard: of the bars of a series Tab reaches the last one, and arrows the others

const slotOf = (bar) => slots(areaOf(bar)).findIndex((slot) => slot.dataset.at === bar.dataset.at);

function stepBar(bar, step, extends_) {
  const bars = all(`[data-bar="${bar.dataset.bar}"]`, bar.closest(".chart")), next = bars[bars.indexOf(bar) + step];
  if (!next) return;
  const area = areaOf(bar);
  if (area && extends_) {
    chosen = { area, from: chosen?.area === area ? chosen.from : slotOf(bar), to: slotOf(next) };
    shade(area, chosen.from, chosen.to);
  } else {
    chosen = null;
    find(".zooming")?.remove();
  }
  next.focus();
}

function zoomAt(bar) {
  const area = areaOf(bar), at = area && slotOf(bar);
  if (area) zoom(chosen?.area === area ? chosen : { area, from: at, to: at });
}

// ---- with the pointer; a finger scrolls

addEventListener("pointerdown", ({ target, button, pointerType, clientX }) => {
  const area = button === 0 && pointerType !== "touch" && areaOf(target);
  dragged = false;
  if (!area || !slots(area).length) return;
  const at = slotAt(area, clientX);
  drag = { area, from: at, to: at };
});
addEventListener("pointermove", ({ clientX, buttons }) => {
  if (!buttons) drag = null; // it was let go outside of the window
  if (!drag) return;
  drag.to = slotAt(drag.area, clientX);
  if (drag.to !== drag.from) dragged = true;
  if (dragged) shade(drag.area, drag.from, drag.to);
});
addEventListener("pointerup", ({ target }) => {
  // A click on a bar opens its events; one beside the bars narrows the time to theirs.
  if (drag && (dragged || (target.matches(".slot") && spanOf(drag.area) > LEAST_S))) zoom(drag);
  drag = null;
});
addEventListener("pointercancel", () => { drag = null; find(".zooming")?.remove(); });
addEventListener("click", (event) => {
  if (dragged && areaOf(event.target)) event.preventDefault();
}, true);
// A bar is a link, and links would be carried away.
addEventListener("dragstart", (event) => { if (areaOf(event.target)) event.preventDefault(); });
