// Keeps pages up to date, follows jobs and consoles. Everything also works without this file; texts from the node are
// only ever set as text, never as HTML.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const seen = (text) => String(text).replace(/[\p{Cc}\p{Cf}]/gu, "\ufffd");

/* ---- live parts ------------------------------------------------------------------------------------------------ */

let waiting = new Set();
let timer = null;
let isAsking = false;
let changes = null;

function follow() {
  if (changes || document.hidden || !$("[data-live]")) return;
  changes = new EventSource("/api/v1/changes");
  changes.onmessage = (event) => {
    try { later(JSON.parse(event.data).changed); } catch { /* a later version's word */ }
  };
}

// Browsers open six connections to one host: a page that nobody sees gives its own back, and catches up later.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    changes?.close();
    changes = null;
  } else if (!changes) {
    follow();
    $$("[data-live]").forEach((part) => part.dataset.live.split(" ").forEach(later));
  }
});
let isLeaving = false;
addEventListener("pagehide", () => { isLeaving = true; changes?.close(); changes = null; });
addEventListener("pageshow", () => { isLeaving = false; follow(); });
addEventListener("beforeunload", () => { isLeaving = true; });

function later(kind) {
  waiting.add(kind);
  timer ??= setTimeout(refresh, 250);
}

async function refresh() {
  timer = null;
  if (isAsking) { timer = setTimeout(refresh, 250); return; }
  const kinds = waiting;
  waiting = new Set();
  const parts = $$("[data-live]").filter((part) => part.dataset.live.split(" ").some((kind) => kinds.has(kind)));
  if (!parts.length) return;
  isAsking = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts) swap(part, fresh.getElementById(part.id));
  } catch {
    // The node is away; the event stream reconnects by itself and the next change asks again.
  } finally {
    isAsking = false;
  }
}

function swap(part, fresh) {
  if (!fresh || part.innerHTML === fresh.innerHTML) return;
  if (part.dataset.when && part.dataset.when === fresh.dataset.when) return; // the same in another state of its fields
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  if (focused?.matches("input, select, textarea")) return;
  if ($("form[aria-busy=true], button:disabled", part)) return; // under way; asked again at the end
  const open = $$("details[open]", part).map((details) => details.id);
  part.replaceChildren(...document.adoptNode(fresh).childNodes);
  if (fresh.dataset.when) part.dataset.when = fresh.dataset.when;
  addPorts(part);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused?.id) document.getElementById(focused.id)?.focus({ preventScroll: true });
}

/* ---- jobs ------------------------------------------------------------------------------------------------------ */

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.matches("[data-once]")) {
    if (form.getAttribute("aria-busy") === "true") { event.preventDefault(); return; }
    form.setAttribute("aria-busy", "true");
    const button = $("button", form);
    button.textContent = form.dataset.once;
    // Disabled after the form was read, or a disabled button would drop out of it.
    setTimeout(() => { button.disabled = true; });
    return;
  }
  if (!form.matches("[data-job]") || !$("#job-box")) return;
  event.preventDefault();
  const holder = form.closest("[data-jobs]");
  const buttons = $$("button[type=submit]", holder);
  const free = () => {
    buttons.forEach((button) => { button.disabled = false; });
    ["catalog", "store"].forEach(later);
  };
  const box = newBox(holder);
  const body = new URLSearchParams(new FormData(form));
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
    const value = await answer.json();
    if (!answer.ok) { failed(box, value); free(); return; }
    const key = `job:${holder.dataset.jobs}`;
    sessionStorage.setItem(key, value.job);
    watch(value.job, box, () => { sessionStorage.removeItem(key); free(); });
  } catch {
    failed(box, { message: "the node did not answer", hint: "check that it is running, then reload the page" });
    free();
  }
});

function newBox(holder) {
  const box = $("#job-box").content.firstElementChild.cloneNode(true);
  $(".jobs", holder).replaceChildren(box);
  box.scrollIntoView({ block: "nearest" });
  return box;
}

function watch(job, box, over) {
  const address = `/api/v1/jobs/${encodeURIComponent(job)}`;
  const events = new EventSource(`${address}/events`);
  const cancel = $("[data-cancel]", box);
  let misses = 0;
  const end = () => { events.close(); cancel.hidden = true; over(); };
  cancel.hidden = false;
  cancel.onclick = async () => {
    cancel.disabled = true;
    try { await fetch(address, { method: "DELETE" }); } catch { cancel.disabled = false; }
  };
  events.onmessage = (event) => {
    const said = JSON.parse(event.data);
    misses = 0;
    if (said.event === "progress") progress(box, said);
    if (said.event === "failed") { end(); failed(box, said.error); }
    if (said.event === "done") { end(); done(box, said.result); }
  };
  // An EventSource tries again by itself, but not after an answer that is an error: the job is then unknown.
  events.onerror = () => {
    if (isLeaving) return; // the browser hangs up for us; the job goes on, and is found again on the way back
    misses += 1;
    if (events.readyState !== EventSource.CLOSED && misses < 10) return;
    end();
    failed(box, { message: "the node no longer tells how this goes", hint: "reload the page to see what came of it" });
  };
}

function progress(box, { stage, done, total }) {
  const text = `${seen(stage).replace(/^./, (first) => first.toUpperCase())}…`;
  // A live region: written only when the stage changes, so that a screen reader is not flooded.
  if ($(".stage", box).textContent !== text) $(".stage", box).textContent = text;
  const bar = $("progress", box);
  if (total > 0) { bar.max = total; bar.value = done; } else { bar.removeAttribute("value"); }
  $(".amount", box).textContent = total > 0 ? `${size(done)} of ${size(total)}` : "";
}

function done(box, result) {
  box.classList.add("is-done");
  $("progress", box).hidden = true;
  $(".amount", box).textContent = "";
  const stage = $(".stage", box);
  if (typeof result?.instance === "string") {
    const link = document.createElement("a");
    link.href = `/instances/${encodeURIComponent(result.instance)}`;
    link.textContent = "its console and ports";
    stage.replaceChildren("✓ Running: ", link, ".");
  } else if (typeof result?.wire_bytes === "number") {
    const sites = Object.keys(result.peers ?? {}).length;
    stage.textContent = `✓ Fetched ${size(result.bytes)} in ${result.seconds.toFixed(1)} s; ${size(result.wire_bytes)} came from ${sites} ${sites === 1 ? "site" : "sites"}.`;
  } else {
    stage.textContent = "✓ Done.";
  }
}

function failed(box, error) {
  box.classList.add("is-failed");
  $("progress", box).hidden = true;
  $("[data-cancel]", box).hidden = true;
  $(".stage", box).textContent = `✕ Not done: ${seen(error?.message ?? "unknown error")}`;
  $(".amount", box).textContent = seen(error?.hint ?? "");
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (bytes >= 999.5 && at + 1 < units.length) { bytes /= 1024; at += 1; }
  return `${at > 0 && bytes < 9.95 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

/* ---- consoles -------------------------------------------------------------------------------------------------- */

const KEPT_CHARACTERS = 400_000;

function consoleOf(pre) {
  const box = $("[data-follow]");
  let stop = null;
  async function start() {
    stop = new AbortController();
    const { signal } = stop;
    const decoder = new TextDecoder();
    let isFirst = true;
    let held = "";
    try {
      const answer = await fetch(`${pre.dataset.log}?follow=true`, { signal });
      if (!answer.ok || !answer.body) return;
      const reader = answer.body.getReader();
      for (;;) {
        const { value, done: isOver } = await reader.read();
        if (isOver) break;
        held += decoder.decode(value, { stream: true });
        // An escape sequence that is cut in two waits for its other half.
        const cut = held.slice(-64).search(/\x1b[^\x1b]{0,40}$/);
        const until = cut >= 0 && !/\x1b(\[[0-9;?]*[@-~]|\][^\x07]*\x07)/.test(held.slice(-64).slice(cut)) ? held.length - Math.min(64, held.length) + cut : held.length;
        const text = plain(held.slice(0, until));
        held = held.slice(until);
        const isAtEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
        const whole = (isFirst ? "" : pre.textContent) + text;
        if (isFirst || whole.length > KEPT_CHARACTERS) pre.textContent = whole.slice(-KEPT_CHARACTERS);
        else pre.append(text);
        if (isAtEnd || isFirst) pre.scrollTop = pre.scrollHeight;
        isFirst = false;
      }
    } catch { /* stopped, or the node is away */ }
  }
  const set = (isOn) => {
    stop?.abort();
    stop = null;
    if (isOn) start();
  };
  box.closest("[hidden]").hidden = false;
  box.addEventListener("change", () => set(box.checked));
  document.addEventListener("visibilitychange", () => set(box.checked && !document.hidden));
  pre.scrollTop = pre.scrollHeight;
  set(true);
}

function plain(text) {
  return text
    .replace(/\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[@-Z\\-_=>78c]/g, "")
    .replace(/[^\P{Cc}\n\t]/gu, "")
    .replace(/\p{Cf}/gu, "\ufffd");
}

/* ---- small comforts -------------------------------------------------------------------------------------------- */

addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  const search = $("[data-search]");
  if (search) { search.focus(); search.select(); } else { location.href = "/#q"; }
});

function addPorts(root) {
  for (const button of $$("[data-add-port]", root)) {
    // Without scripts there are rows to spare; with them, one is enough to begin with.
    $$(".ports", button.parentElement).slice(1).forEach((row) => row.remove());
    button.hidden = false;
    button.addEventListener("click", () => {
      const rows = $$(".ports", button.parentElement);
      const row = rows.at(-1).cloneNode(true);
      $$("input", row).forEach((input) => { input.value = ""; });
      $$(".unseen", row).forEach((word) => { word.textContent = ` port ${rows.length + 1}`; });
      button.before(row);
      $("input", row).focus();
    });
  }
}
addPorts(document);

if (location.hash === "#q") $("[data-search]")?.focus();
for (const holder of $$("[data-jobs]")) {
  const key = `job:${holder.dataset.jobs}`;
  const job = sessionStorage.getItem(key);
  if (job) watch(job, newBox(holder), () => sessionStorage.removeItem(key));
}
const log = $("[data-log]");
if (log) consoleOf(log);
follow();
