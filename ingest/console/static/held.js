// What a refresh would change of a page that is held: counted by its rows, and nothing is touched.
"use strict";

const NAMED_ROWS = "main :is(tr, li, article)[id]";

// What is to be read there, with times as they are stored: that two minutes have become three is no news.
function wordsOf(part) {
  const copy = part.cloneNode(true);
  for (const time of all("[data-time]", copy)) time.textContent = time.getAttribute("datetime") || time.dataset.at;
  return copy.textContent.replace(/\s+/g, " ").trim();
}

// A page as the console sent it: the words of each row by its id, and those of the rest.
function wordsOfPage(page) {
  const rows = new Map(all(NAMED_ROWS, page).map((row) => [row.id, wordsOf(row)]));
  const rest = find("main", page).cloneNode(true);
  for (const row of all(":is(tr, li, article)[id]", rest)) row.remove();
  return { rows, rest: wordsOf(rest) };
}

// A row that is missing below all that remain was pushed off its list, if something came above it.
function isGone(row, fresh, hasNew) {
  if (fresh.has(row.id) || row.classList.contains("is-gone")) return false;
  if (!hasNew || !row.parentElement.matches("[data-list]")) return true;
  const rows = [...row.parentElement.children];
  return rows.findLastIndex((other) => fresh.has(other.id)) > rows.indexOf(row);
}

// Says how many rows and what else would change. `known` is the page that is shown, as it was sent; `fresh` is how it was
// sent last.
function changesWaiting(known, fresh) {
  const shown = all(NAMED_ROWS), ids = new Set(shown.map((row) => row.id));
  const added = [...fresh.rows.keys()].filter((id) => !ids.has(id)).length;
  const changed = [...fresh.rows].filter(([id, words]) => ids.has(id) && known.rows.has(id) && known.rows.get(id) !== words).length;
  const gone = shown.filter((row) => isGone(row, fresh.rows, added > 0)).length;
  const figures = known.rest === fresh.rest ? 0 : 1, total = added + changed + gone + figures;
  const counts = [[added, "new"], [changed, "changed"], [gone, "gone"]].filter(([count]) => count).map(([count, what]) => `${count} ${what}`);
  if (figures) counts.push("other figures");
  return total ? `${total} ${total === 1 ? "change" : "changes"} waiting: ${counts.join(", ")}` : "";
}
