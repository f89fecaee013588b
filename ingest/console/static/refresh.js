// Keeps a page as it is now: asks the console for the page again, and changes in place what differs.
// Nothing changes under the user's hands: what is typed, focused, unfolded or selected stays, a list
// keeps its rows where they are, and what is new in it is announced.
"use strict";

const RENEWED = ["#alerts", "#dead-letters", "#main"];
const TIMEOUT_MS = 15_000, LONGEST_MS = 60_000;
const SHARE = 10; // of the time, a page refreshes for a tenth at most, however slow it is

// ---- what is the user's

const isField = (node) => node.matches("input, textarea, select");

function isTouched(field) {
  if (field === document.activeElement || field.matches("select")) return true;
  if (/^(checkbox|radio)$/.test(field.type)) return field.checked !== field.defaultChecked;
  return field.value !== field.defaultValue;
}

const isTheirs = (node) => node instanceof Element && (
  node.matches("[data-keep]") || (isField(node) && isTouched(node))
  || (node.matches(".chart") && node.contains(document.activeElement)));
const holdsTheirs = (node) => node instanceof Element
  && [node, ...all("*", node)].some((part) => part === document.activeElement || (isField(part) && isTouched(part)));

const hands = {
  beforeNodeMorphed: (old) => !isTheirs(old),
  beforeNodeRemoved: (old) => !holdsTheirs(old),
  beforeAttributeUpdated: (name, node) => !(name === "open" && node.matches("details")) && !(name === "tabindex" && node.matches("tr, li, article")),
};

// A page waits while nobody looks, while something is asked or sent, and while text is picked in it.
function isBusy() {
  const picked = getSelection();
  return document.hidden || isSending || drag || find("dialog[open]")
    || (!picked.isCollapsed && find("main").contains(picked.anchorNode));
}

// ---- lists: rows are renewed where they stand; what is new above them waits until it is asked for

function holdRows(list, fresh) {
  const now = new Map([...fresh.children].map((row) => [row.id, row]));
  const old = [...list.children], known = new Set(old.map((row) => row.id));
  const last = [...fresh.children].findLastIndex((row) => known.has(row.id));
  const above = [...fresh.children].filter((row, at) => at < last || last < 0).filter((row) => !known.has(row.id));
  const below = last < 0 ? [] : [...fresh.children].slice(last + 1);
  const table = list.closest("table"), other = fresh.closest("table");
  const arrived = { count: above.length, isAll: last < 0 && above.length > 0, list };
  if (table && table.tHead?.innerHTML !== other.tHead?.innerHTML) { // other columns: none of its rows fits
    other.replaceWith(table.cloneNode(true));
    return { ...arrived, count: Math.max(arrived.count, 1) };
  }
  // What is missing below all that remain was pushed off the page, if something came above it.
  const lastKept = old.findLastIndex((row) => now.has(row.id));
  const rows = old.map((row, at) => {
    if (now.has(row.id)) return now.get(row.id);
    const copy = row.cloneNode(true);
    copy.classList.toggle("is-gone", at < lastKept || !above.length);
    return copy;
  });
  fresh.replaceChildren(...rows, ...below);
  return arrived;
}

function announce(button, arrived) {
  const some = arrived.filter(({ count }) => count);
  button.hidden = !some.length;
  button.textContent = some.map(({ count, isAll, list }) => {
    const [one, many] = list.dataset.list.split("|");
    return `${count}${isAll ? " or more" : ""} new ${count === 1 ? one : many}`;
  }).join(", ") + ": show";
}

// ---- the page

function renew(next, shows) {
  localise(next);
  tellKeys(next);
  const lists = all("[data-list]"), known = new Set(all("[data-list] > *").map((row) => row.id));
  const arrived = shows ? [] : lists.flatMap((list) => {
    const fresh = next.getElementById(list.id);
    return fresh ? [holdRows(list, fresh)] : [];
  });
  for (const selector of RENEWED) {
    const old = find(selector), fresh = find(selector, next);
    if (old && fresh) Idiomorph.morph(old, fresh, { callbacks: hands });
  }
  document.title = next.title;
  all("[data-bulk]").forEach(countSelected);
  if (shows) {
    const rows = all("[data-list] > *").filter((row) => !known.has(row.id));
    for (const row of rows) row.classList.add("fresh");
    if (rows.length) focusRow(rows[0]);
  }
  return arrived;
}

function refreshes(foot) {
  const clock = find("time", foot), state = find("[data-refresh-state]", foot);
  const holds = find("[data-hold]", foot), news = find("[data-news]", foot);
  const every = Number(foot.dataset.refresh) * 1000;
  let wait = every, failures = 0, timer = 0, tag = null, isHeld = false, isAsking = false, hasEnded = false;
  let known = wordsOfPage(document), heldSince = "", heldTag = null, heldWait = every, waiting = "";

  function say(name, ...parts) {
    const said = make("span");
    said.append(...parts);
    if (state.dataset.state === name && state.textContent === said.textContent) return;
    state.dataset.state = name;
    state.replaceChildren(...parts);
  }
  const saySince = (name, ...parts) => say(name, `not refreshed since ${spellTime(new Date(clock.dateTime), "clock")}: `, ...parts);

  function plan() {
    clearTimeout(timer);
    if (!hasEnded && !document.hidden) timer = setTimeout(isHeld ? look : refresh, isHeld ? heldWait : wait);
  }

  function fail(why) {
    failures += 1;
    wait = Math.min(every * 2 ** failures, LONGEST_MS);
    if (isHeld) sayHeld(why);
    else saySince("away", why);
  }

  const sayHeld = (more) => say("paused", `held since ${heldSince}${more ? `; ${more}` : ""}`);

  // Says what waits, and leaves the page alone.
  function tell({ answer, text }) {
    if (answer.redirected) waiting = "something else is here now";
    else if (answer.status !== 304) {
      heldTag = answer.headers.get("etag");
      waiting = changesWaiting(known, wordsOfPage(new DOMParser().parseFromString(text, "text/html")));
    }
    sayHeld(waiting);
  }

  // Looks what waits while the page is held: less and less often, and not while nobody sees it.
  async function look() {
    clearTimeout(timer);
    if (isAsking || hasEnded || document.hidden) return;
    isAsking = true;
    const answered = await ask(heldTag);
    isAsking = false;
    if (!isHeld) return refresh();
    if (answered) tell(answered);
    heldWait = Math.min(2 * heldWait, LONGEST_MS);
    plan();
  }

  function end() {
    hasEnded = true;
    holds.hidden = news.hidden = true;
    const href = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
    saySince("away", "your session has ended. ", make("a", { href, textContent: "Log in" }));
  }

  async function ask(unless) {
    const condition = unless ? { "if-none-match": unless } : {};
    try {
      const answer = await fetch(location.href, { headers: { "x-refresh": "1", ...condition }, signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (answer.status === 401) end();
      else if (!answer.ok && answer.status !== 304) fail(`the console answers ${answer.status}`);
      else return { answer, text: await answer.text() };
    } catch (error) {
      fail(error.name === "TimeoutError" ? "the console is slow" : "the console does not answer");
    }
    return null;
  }

  function take({ answer, text }, shows) {
    if (answer.redirected) return location.replace(answer.url); // what is shown has become something else
    if (answer.status !== 304) {
      const next = new DOMParser().parseFromString(text, "text/html");
      known = wordsOfPage(next);
      announce(news, renew(next, shows));
      tag = heldTag = answer.headers.get("etag");
    }
    clock.dateTime = answer.headers.get("x-as-of");
    localise(foot);
  }

  async function refresh({ shows = false } = {}) {
    clearTimeout(timer);
    if (isAsking || hasEnded) return;
    if (!shows && isBusy()) return plan();
    isAsking = true;
    const began = performance.now(), answered = await ask(shows ? null : tag);
    isAsking = false;
    if (answered) {
      failures = 0;
      wait = Math.max(every, SHARE * (performance.now() - began));
      if (shows || !(isHeld || isBusy())) take(answered, shows); // else the hands came between
      if (!isHeld) say("on", `refreshing every ${Math.round(wait / 1000)} s`);
      else if (shows) sayHeld((waiting = ""));
    }
    plan();
  }

  holds.onclick = () => {
    isHeld = !isHeld;
    holds.textContent = isHeld ? "Go on" : "Hold";
    if (!isHeld) return refresh();
    heldSince = spellTime(new Date(), "minute");
    heldTag = tag;
    heldWait = every;
    sayHeld((waiting = ""));
    plan();
  };
  news.onclick = () => refresh({ shows: true });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : isHeld ? look() : refresh()));
  addEventListener("pageshow", ({ persisted }) => persisted && (isHeld ? look() : refresh()));
  plan();
}

all("[data-refresh]").forEach(refreshes);
