// The page: what is seen is in the fragment of its address, so that a link leads to it.
//
// `#/` is the overview (`?q=` filter, `sort=`, `only`), `#/netns/NAME` one namespace.

import { $, setAttribute, setText } from "./dom.js";
import { Detail, sick } from "./detail.js";
import { Picture } from "./picture.js";
import { ask, Store } from "./store.js";
import { health, Table } from "./table.js";
import { count, many, perSecond, rate } from "./words.js";

/** The wiring is asked for that often, in ms, and when namespaces come or go. */
const WIRING = 10_000;
/** From one thing that is said to who listens to the next, in ms. */
const SAYING = 8000;
/** Namespaces in trouble that are listed. */
const LISTED = 5;

const view = { sort: "trouble", up: false, filter: "", only: false, unit: "packets", where: () => [] };
const store = new Store({ changed, gone });
const table = new Table(store, view, { onView });
const picture = new Picture(store, view, $("picture"), $("rule"));
let detail = null;
let wiredAt = 0;
let labels = "";
let said = "";
let saidAt = 0;

// ---- what is seen

function route() {
  const [path, query = ""] = decodedFragment();
  const netns = path.match(/^\/netns\/(.+)$/)?.[1];
  detail?.end();
  detail = null;
  if (netns === undefined) {
    const asked = new URLSearchParams(query);
    view.filter = asked.get("q") ?? "";
    view.sort = asked.get("sort") ?? "trouble";
    view.up = asked.has("up");
    view.only = asked.has("only");
    table.show();
  } else {
    let name = netns;
    try {
      name = decodeURIComponent(netns);
    } catch {
      // As it is written, then.
    }
    detail = new Detail(store, view, $("detail"), name);
    detail.update();
    detail.title.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  $("overview").hidden = detail !== null;
  $("detail").hidden = detail === null;
  table.fill();
  name();
}

function decodedFragment() {
  const fragment = location.hash.slice(1) || "/";
  const at = fragment.indexOf("?");
  return at < 0 ? [fragment] : [fragment.slice(0, at), fragment.slice(at + 1)];
}

/** Takes up a wish of the table, and writes it into the address. */
function onView(wish) {
  Object.assign(view, wish);
  const query = new URLSearchParams();
  if (view.filter) query.set("q", view.filter);
  if (view.sort !== "trouble") query.set("sort", view.sort);
  if (view.up) query.set("up", "");
  if (view.only) query.set("only", "");
  const text = query.toString();
  history.replaceState(null, "", `#/${text ? `?${text}` : ""}`);
  table.show();
}

function name() {
  const host = store.status?.host;
  document.title = [detail?.netns, host, "netns-monitor"].filter(Boolean).join(" · ");
}

// ---- what is heard

function changed() {
  const { status, namespaces } = store;
  live("live", "live");
  notice(status.ready ? null : `The agent is not ready: ${status.why}`);
  setText($("host"), status.host);
  setText($("version"), `netns-monitor ${status.version}`);
  sums();
  attention();
  $("empty").hidden = status.namespaces > 0;
  $("namespaces").hidden = $("wiring").hidden = $("attention").hidden = status.namespaces === 0;
  if (detail === null) {
    $("overview").hidden = false;
    table.update();
    picture.update();
  } else detail.update();
  name();
  const present = [...namespaces.keys()].join("\n");
  if (present !== labels || performance.now() - wiredAt > WIRING) {
    labels = present;
    wiredAt = performance.now();
    wire();
  }
}

function gone(why) {
  live("gone", "agent is gone");
  notice(
    `${why} What is shown is as of ${store.status ? new Date(store.status.time * 1000).toLocaleTimeString() : "nothing yet"}; trying again every second.`,
  );
}

async function wire() {
  try {
    const topology = await ask("/api/v1/topology?limit=5000");
    const where = new Map();
    for (const { netns, interfaces } of topology.namespaces) {
      for (const one of interfaces) {
        const words = [one.bridge, one.peer?.interface, one.peer?.netns, ...(one.addresses ?? [])];
        where.set(`${netns}\n${one.name}`, words.filter(Boolean));
      }
    }
    view.where = (netns, name) => where.get(`${netns}\n${name}`) ?? [];
    picture.take(topology);
  } catch {
    // The next event asks again.
    wiredAt = 0;
  }
}

/** Whether the agent is heard of, seen and said. */
function live(state, text) {
  const chip = $("live");
  if (chip.dataset.state === state) return;
  say(state === "live" ? "Live." : "The agent is gone.", true);
  chip.dataset.state = state;
  setText(chip, text);
}

function notice(text) {
  $("notice").hidden = text === null;
  setText($("notice"), text ?? "");
}

/** For who listens: only what is new, and not all the time. */
function say(text, urgent) {
  if (said === text || (!urgent && performance.now() - saidAt < SAYING)) return;
  setText($("said"), text);
  said = text;
  saidAt = performance.now();
}

function sums() {
  const { unit } = view;
  const sum = { receive: 0, transmit: 0, losses: 0, tcp: 0 };
  let known = false;
  for (const { rate: now } of store.namespaces.values()) {
    if (!now) continue;
    known = true;
    sum.receive += now.receive?.[unit] ?? 0;
    sum.transmit += now.transmit?.[unit] ?? 0;
    sum.losses += now.losses ?? 0;
    sum.tcp += now.tcp ?? 0;
  }
  const { status } = store;
  setText($("sum-namespaces"), count(status.namespaces + status.cut));
  setText($("sum-receive"), known ? rate(sum.receive, unit) : "–");
  setText($("sum-transmit"), known ? rate(sum.transmit, unit) : "–");
  setText($("sum-losses"), status.counts_drops ? (known ? perSecond(sum.losses) : "–") : "not counted");
  setText($("sum-tcp"), status.counts_tcp ? (known ? perSecond(sum.tcp) : "–") : "not counted");
}

/** The worst, with what it is and where to look. */
function attention() {
  const all = [...store.namespaces.values()];
  const bad = all.map((netns) => [store.badness(netns), netns]).filter(([badness]) => badness > 0);
  bad.sort(([a, x], [b, y]) => b - a || x.row.netns.localeCompare(y.row.netns, "en", { numeric: true }));
  const worst = bad
    .slice(0, LISTED)
    .map(([, netns]) => ({ ...store.troubles(netns)[0], netns: netns.row.netns }));
  sick($("sick"), worst);
  const known = all.some(({ rate: now }) => now !== null);
  const more =
    bad.length > LISTED
      ? `and ${many(bad.length - LISTED, "more namespace")} in trouble; the table below has them on top`
      : "";
  setText(
    $("calm"),
    bad.length > 0
      ? more
      : known
        ? "Nothing is lost, and every link is up."
        : "Waiting for the second reading.",
  );
  setAttribute($("attention"), "class", `card attention ${bad.length > 0 ? health(store, bad[0][1]) : ""}`);
  if (known)
    say(
      bad.length === 0
        ? "Nothing is lost."
        : `${many(bad.length, "namespace")} in trouble, the worst is ${worst[0].netns}: ${worst[0].title}.`,
    );
}

// ---- what is chosen

function theme(wish) {
  if (wish === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wish;
}

function remembered(name, usual) {
  try {
    return localStorage.getItem(name) ?? usual;
  } catch {
    return usual;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // A browser that keeps nothing keeps nothing.
  }
}

function choice(id, take) {
  const select = $(id);
  const known = [...select.options].map(({ value }) => value);
  const wish = remembered(id, select.value);
  select.value = known.includes(wish) ? wish : select.value;
  take(select.value);
  select.addEventListener("change", () => {
    remember(id, select.value);
    take(select.value);
  });
}

choice("theme", theme);
choice("unit", (unit) => {
  view.unit = unit;
  if (store.status) changed();
});
addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing && detail === null) {
    event.preventDefault();
    $("filter").focus();
  } else if (event.key === "Escape" && detail !== null) {
    location.hash = "#/";
  } else if (event.key === "ArrowDown" && event.target === $("filter")) {
    event.preventDefault();
    table.focus(0);
  }
});
route();
store.start();
