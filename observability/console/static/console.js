/* The console's only script. Pages work without it; this adds live updates, keys, the crosshair and local times. */
"use strict";

const root = document.documentElement;
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// -- light and dark
const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const paint = () => { root.dataset.theme = stored() || (dark.matches ? "dark" : "light"); };
paint();
dark.addEventListener("change", paint);
document.getElementById("theme").addEventListener("click", () => {
  const next = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", next); } catch { /* this page only */ }
  root.dataset.theme = next;
});

// -- times in the reader's zone, UTC on hover
const two = (number) => String(number).padStart(2, "0");
const dayOf = (at) => `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
const forms = { minute: (at) => `${two(at.getHours())}:${two(at.getMinutes())}`, second: (at) => `${forms.minute(at)}:${two(at.getSeconds())}`, day: (at) => `${dayOf(at)} ${forms.minute(at)}`, full: (at) => `${dayOf(at)} ${forms.second(at)}` };
function localise(inside) {
  for (const time of $$("time[datetime]", inside)) {
    const at = new Date(time.dateTime);
    if (!time.dateTime || isNaN(at)) continue;
    const day = `${at.getFullYear()}-${dayOf(at)}`;
    const full = `${forms.second(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
    const today = new Date().toDateString() === at.toDateString();
    time.textContent = today ? full : `${day} ${full}`;
    time.title = `${time.dateTime} (UTC)`;
  }
  for (const text of $$("[data-at]", inside)) {
    const times = text.dataset.at.split(" ").map((at) => new Date(at));
    if (!times.some(isNaN)) text.textContent = times.map(forms[text.dataset.form]).join(" – ");
  }
}

/* The fields of a time are in the reader's zone too; what is sent is not. */
for (const field of $$("input[type=datetime-local]")) {
  const at = new Date(`${field.value}Z`);
  if (!isNaN(at)) field.value = `${at.getFullYear()}-${dayOf(at)}T${forms.second(at)}`;
  field.form.addEventListener("input", ({ currentTarget: { elements: { from, to } } }) => to.setCustomValidity(from.value < to.value ? "" : "The end comes after the beginning."));
}
document.addEventListener("formdata", (event) => {
  for (const { type, name, value } of event.target.elements) if (type === "datetime-local") event.formData.set(name, Date.parse(value));
});

// -- going elsewhere
const busy = (yes) => root.classList.toggle("busy", yes);
addEventListener("pageshow", () => busy(false));
document.addEventListener("submit", (event) => { if (event.target.method !== "dialog") busy(true); });
document.addEventListener("change", (event) => {
  const field = event.target;
  if (field.dataset.clears) field.form.elements[field.dataset.clears].value = "";
  if ("submit" in field.dataset) { busy(true); field.form.requestSubmit(); }
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const label = button.textContent;
    try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "✓ copied"; }
    catch { button.textContent = "not allowed"; }
    setTimeout(() => { button.textContent = label; }, 1200);
    return;
  }
  const row = event.target.closest("a.wrow, .shares a, .inset a[href*='#span']");
  if (row && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); choose(row.href, row.id); return; }
  const link = event.target.closest("a[href]");
  if (link && !link.hash && !event.ctrlKey && !event.metaKey) busy(true);
});
const compare = document.getElementById("compare");
function count() {
  const number = $$("#pick [name=id]:checked").length;
  compare.disabled = number !== 2;
  document.getElementById("howmany").textContent = number === 2 ? "" : `Choose two traces: ${number} ${number === 1 ? "is" : "are"} chosen.`;
}
if (compare) { document.getElementById("pick").addEventListener("change", count); addEventListener("pageshow", count); }

// -- the same page again, in place: only what changed is replaced, and the focus stays
let running = null;
async function refresh(url, always = false) {
  running?.abort();
  running = new AbortController();
  const answer = await fetch(url, { signal: running.signal });
  if (!answer.ok) return answer.status === 401 ? "login" : "error";
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  localise(fresh);
  const focus = remembered();
  for (const part of $$("#main section[id], #main > div[id]:not(:has(> section[id]))")) {
    const other = fresh.getElementById(part.id);
    if (!other || "keep" in part.dataset || part.querySelector("section[id] section[id]")) continue;
    if (!always && part.querySelector("details[open]")) continue; // somebody reads there
    if (other.innerHTML === part.dataset.was) continue;
    part.dataset.was = other.innerHTML;
    part.innerHTML = other.innerHTML;
  }
  const main = document.getElementById("main"), freshMain = fresh.getElementById("main");
  if (freshMain.dataset.live) main.dataset.live = freshMain.dataset.live; else delete main.dataset.live;
  if (document.activeElement === document.body) focus()?.focus({ preventScroll: true });
  return "";
}
/* Give what finds the element that has the focus now once its part was replaced: by id, link, chart, or as the nth of its kind. */
function remembered() {
  const active = document.activeElement, main = document.getElementById("main");
  if (!active || active === document.body) return () => null;
  const { id, tagName } = active, href = active.getAttribute("href");
  const chart = active.closest(".chart")?.id, region = active.closest("[id]:not(#main)")?.id, inside = (name) => document.getElementById(name) || main;
  const number = $$(tagName, inside(region)).indexOf(active);
  return () => (id && document.getElementById(id)) || (href && $$("a").find((link) => link.getAttribute("href") === href))
    || (chart && document.querySelector(`#${CSS.escape(chart)} svg`)) || (!id && !href && $$(tagName, inside(region))[number]);
}
/* Say that what is shown is old, and why: "gone", "login" or "error"; "" is all well. */
function stale(why) {
  const notice = document.getElementById("stale");
  notice.hidden = !why;
  for (const reason of $$("[data-why]", notice)) reason.hidden = reason.dataset.why !== why;
}
let tries = 0;
async function live() {
  const main = document.getElementById("main");
  const every = parseFloat(main.dataset.live);
  const most = parseInt(main.dataset.tries || "0", 10);
  if (!every || (most && ++tries > most)) return;
  if (!document.hidden && !dragging) {
    let why = "";
    try { why = await refresh(location.href); } catch (error) { why = error.name === "AbortError" ? "" : "gone"; }
    stale(why);
  }
  setTimeout(live, every * 1000);
}
async function choose(href, id) {
  busy(true);
  try {
    history.pushState({}, "", href.split("#")[0]);
    if (await refresh(href.split("#")[0], true)) location.reload();
    document.getElementById("span")?.scrollIntoView({ block: "nearest" });
    document.getElementById(id)?.focus({ preventScroll: true });
  } catch (error) { if (error.name !== "AbortError") location.reload(); } // else a newer one took its place
  busy(false);
}
addEventListener("popstate", () => { refresh(location.href, true).then((wrong) => wrong && location.reload(), () => location.reload()); });

// -- charts: a crosshair in all of the page, drag or + and - to zoom, arrows to read; only the one with the focus is read aloud
for (const [what, how] of [["focusin", "polite"], ["focusout", "off"]]) {
  document.addEventListener(what, (event) => event.target.closest?.(".chart")?.querySelector(".readout")?.setAttribute("aria-live", how));
}
const charts = () => $$(".chart[data-series]");
function show(at) {
  for (const chart of charts()) {
    const t0 = +chart.dataset.t0, t1 = +chart.dataset.t1;
    const output = chart.querySelector(".readout"), cross = chart.querySelector(".cross");
    if (at === null) { output.textContent = ""; cross.setAttribute("d", ""); continue; }
    const when = t0 + at * (t1 - t0);
    cross.setAttribute("d", `M${at * 1000} 0V100`);
    const date = new Date(when * 1000);
    const lines = [forms[t1 - t0 < 86400 ? "second" : "full"](date)];
    for (const series of JSON.parse(chart.dataset.series).slice(0, 10)) {
      const near = series.p.reduce((best, point) => (!best || Math.abs(point[0] - when) < Math.abs(best[0] - when) ? point : best), null);
      if (near && Math.abs(near[0] - when) < (t1 - t0) / 40) lines.push(`${near[1]}  ${series.n.slice(0, 40)}`);
    }
    output.textContent = lines.join("\n");
  }
}
let dragging = null;
const part = (svg, event) => { const box = svg.getBoundingClientRect(); return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1); };
const plotOf = (event) => event.target.closest?.(".chart[data-series] .plot svg");
document.addEventListener("pointermove", (event) => {
  const svg = dragging?.svg || plotOf(event);
  if (!svg) { if (document.activeElement?.closest?.(".plot") == null) show(null); return; }
  const at = part(svg, event);
  show(at);
  if (dragging) {
    dragging.rect.setAttribute("x", Math.min(at, dragging.from) * 1000);
    dragging.rect.setAttribute("width", Math.abs(at - dragging.from) * 1000);
  }
});
document.addEventListener("pointerdown", (event) => {
  const svg = plotOf(event);
  if (dragging) { cancel(); return; } // a second finger
  if (!svg || event.button || event.target.closest("a")) return;
  svg.setPointerCapture(event.pointerId); // the end is told here, wherever it is
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("class", "select");
  rect.setAttribute("height", "100");
  svg.append(rect);
  dragging = { svg, rect, from: part(svg, event) };
});
document.addEventListener("pointerup", (event) => {
  if (!dragging) return;
  const { svg, rect, from } = dragging, to = part(svg, event);
  cancel();
  if (Math.abs(to - from) >= 0.01) zoom(svg, Math.min(from, to), Math.max(from, to));
});
function cancel() { dragging?.rect.remove(); dragging = null; }
document.addEventListener("pointercancel", cancel); // the finger scrolls instead, or a call comes in
document.addEventListener("lostpointercapture", cancel);
/* Show a part of a chart's time, given from 0 to 1; the address keeps the range before, to which Esc leads back. */
function zoom(svg, from, to, again = "") {
  const chart = svg.closest(".chart"), t0 = +chart.dataset.t0, t1 = +chart.dataset.t1;
  const url = new URL(location.href), range = document.querySelector(".range select")?.value;
  url.searchParams.delete("range");
  url.searchParams.set("from", Math.round((t0 + from * (t1 - t0)) * 1000));
  url.searchParams.set("to", Math.round((t0 + to * (t1 - t0)) * 1000));
  if (range) url.searchParams.set("back", range);
  url.hash = "";
  try { sessionStorage.setItem("zoomed", again); } catch { /* the focus is lost then */ }
  busy(true);
  location.href = url;
}
document.addEventListener("dblclick", (event) => { if (plotOf(event)) whole(); });
function whole() {
  const link = document.getElementById("whole"); // there where a time was chosen
  if (link) { busy(true); location.href = link.href; } else show(null);
}

// -- keys
let reading = 1;
const pages = { o: 0, r: 1, t: 2, l: 3, d: 4 }; // which link of the menu, which keeps the time
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const on = document.activeElement;
  if (on?.matches("input, select, textarea")) {
    if (event.key === "Escape") on.blur();
    if (event.key === "Enter" && on.id === "q" && !event.shiftKey) { event.preventDefault(); on.form.requestSubmit(); }
    return;
  }
  if (document.getElementById("keys").open) return;
  const svg = on?.closest?.(".chart[data-series] svg");
  if (event.key === "/") { event.preventDefault(); document.getElementById("find").focus(); }
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (svg && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    event.preventDefault();
    reading = Math.min(Math.max(reading + (event.key === "ArrowLeft" ? -1 : 1) / 60, 0), 1);
    show(reading);
  } else if (svg && (event.key === "+" || event.key === "=" || event.key === "-")) {
    event.preventDefault();
    const { t0, t1, id } = { ...svg.closest(".chart").dataset, id: svg.closest(".chart").id };
    const wide = event.key === "-" ? 2 : 0.5; // as much of the time shown, around where it is read, and not after now
    const latest = event.key === "-" ? Math.max(1, (Date.now() / 1000 - t0) / (t1 - t0)) : 1;
    const end = Math.min(Math.max(reading + wide / 2, wide), latest);
    zoom(svg, end - wide, end, id);
  } else if (event.key === "Escape") {
    const open = document.querySelector(".times[open], .why[open]");
    if (dragging) cancel(); else if (open) open.open = false; else whole();
  }
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const row = on?.closest?.(".wrow");
    if (!row) return;
    event.preventDefault();
    const rows = $$(".wrow:not(.whead)", row.parentElement);
    const next = rows[rows.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
    next?.focus();
  } else if (event.key in pages) $$(".top nav a")[pages[event.key]].click();
});

localise(document);
try { document.getElementById(sessionStorage.getItem("zoomed"))?.querySelector("svg").focus(); sessionStorage.removeItem("zoomed"); } catch { /* then without */ }
setTimeout(live, parseFloat(document.getElementById("main").dataset.live || "0") * 1000);
