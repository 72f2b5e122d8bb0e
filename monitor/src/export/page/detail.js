// Everything of one namespace.

import { h, line, s, setAttribute, setText } from "./dom.js";
import { ask, HISTORY } from "./store.js";
import { count, linkTo, micros, perSecond, rate, short, size } from "./words.js";
import { health, tags } from "./table.js";

const CHART = { width: 640, height: 120 };

export class Detail {
  constructor(store, view, element, netns) {
    Object.assign(this, { store, view, element, netns, before: null, now: null, asking: false, over: false });
    this.title = h("h1", { tabindex: "-1" }, netns);
    this.tags = h("p", { class: "muted" });
    this.trouble = h("ol", { class: "sick" });
    this.calm = h("p", { class: "calm" });
    this.charts = ["receive", "transmit"].map((way) => chart(way));
    this.facts = h("div", { class: "facts" });
    this.holders = h(
      "div",
      { role: "status" },
      h("p", { class: "muted" }, "Processes, descriptors, sockets and mounts that keep it alive."),
    );
    const look = h(
      "button",
      { type: "button", class: "press", onclick: () => this.look(look) },
      "Look who holds it",
    );
    element.replaceChildren(
      h("p", {}, h("a", { href: "#/", class: "back" }, "← all namespaces")),
      h("header", { class: "headline" }, this.title, this.tags),
      h(
        "section",
        { class: "card attention", "aria-label": "What is wrong now" },
        h("h2", {}, "What is wrong now"),
        this.trouble,
        this.calm,
      ),
      h(
        "div",
        { class: "pair" },
        this.charts.map(({ card }) => card),
      ),
      this.facts,
      h(
        "section",
        { class: "card" },
        h("div", { class: "bar" }, h("h2", {}, "Who holds it"), look),
        this.holders,
      ),
    );
  }

  /** After an event: what the store has, and then what the agent knows besides. */
  async update() {
    this.draw();
    if (this.asking || this.over) return;
    this.asking = true;
    try {
      const answer = await ask(`/api/v1/namespaces/${encodeURIComponent(this.netns)}`);
      if (this.now === null || answer.time > this.now.time) {
        this.before = this.now;
        this.now = answer;
      }
      if (!this.over) this.tell();
    } catch (error) {
      if (error.code === 404)
        setText(this.tags, "There is no such namespace now. As soon as there is, it is shown here.");
    } finally {
      this.asking = false;
    }
  }

  /** Nothing is shown any more. */
  end() {
    this.over = true;
  }

  draw() {
    const found = this.store.namespaces.get(this.netns);
    setAttribute(this.element, "data-health", found ? health(this.store, found) : null);
    if (!found) return;
    const { unit } = this.view;
    this.charts.forEach(({ way, now, total, most, points }) => {
      const values = found.history[way].map((one) => one?.[unit] ?? null);
      const top = nice(values.reduce((most, value) => Math.max(most, value ?? 0), 0));
      const padded = Array(HISTORY - values.length)
        .fill(null)
        .concat(values);
      setAttribute(points, "points", line(padded, CHART.width, CHART.height, top));
      setText(now, rate(found.rate?.[way]?.[unit], unit));
      setText(most, top > 0 ? rate(top, unit) : "");
      const sum = found.row[way];
      setText(total, sum ? `${count(sum.packets)} packets, ${count(sum.bytes)} bytes` : "not counted");
    });
    const troubles = this.store.troubles(found);
    sick(
      this.trouble,
      troubles.map((one) => ({ ...one, netns: null })),
    );
    setText(
      this.calm,
      troubles.length > 0
        ? ""
        : found.rate
          ? "Nothing is lost, and every link is up."
          : "Waiting for the second reading.",
    );
    setAttribute(this.trouble.parentElement, "class", `card attention ${health(this.store, found)}`);
    setText(this.tags, [...new Set([...tags(found.row), ...found.row.aliases])].join(" · "));
  }

  /** The figures, made anew: they are few. */
  tell() {
    const { now, before, store } = this;
    const open = new Set([...this.facts.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    const focused = this.facts.contains(document.activeElement)
      ? document.activeElement.closest("details")?.dataset.name
      : null;
    const seconds = before ? now.time - before.time : 0;
    const per = (of) =>
      seconds > 0 && of(before) !== undefined ? perSecond((of(now) - of(before)) / seconds) : "–";
    const { row } = now;
    const parts = [
      card("Interfaces", interfaces(now, this.view.unit, store.namespaces.get(this.netns))),
      card("Lost and in trouble, ever", symptoms(now, store.namespaces.get(this.netns))),
      h(
        "div",
        { class: "pair" },
        card("Protocols", protocols(now, before, seconds)),
        card("Packets by size", sizes(now.sizes)),
      ),
      h(
        "div",
        { class: "pair" },
        card("TCP", tcp(now, per)),
        card("Network stack, rules, wiring", stack(now)),
      ),
      card("Who it is", identity(now, row)),
    ];
    this.facts.replaceChildren(...parts.filter(Boolean));
    this.facts.querySelectorAll("details").forEach((one) => (one.open = open.has(one.dataset.name)));
    if (focused)
      this.facts.querySelector(`details[data-name="${focused}"] summary`)?.focus({ preventScroll: true });
  }

  async look(button) {
    button.disabled = true;
    try {
      const { holders, notes } = await ask(`/api/v1/namespaces/${encodeURIComponent(this.netns)}/holders`);
      const rows = holders.map(({ kind, pid, uid, program, at }) => [
        kind,
        pid ?? "–",
        uid ?? "–",
        program ?? "–",
        at,
      ]);
      const none = h("p", { class: "muted" }, "Nothing holds it besides its name.");
      const found =
        rows.length > 0 ? grid("Who holds it", ["Kind", "PID", "UID", "Program", "Where"], rows) : none;
      this.holders.replaceChildren(found, ...notes.map((note) => h("p", { class: "muted" }, note)));
    } catch (error) {
      this.holders.replaceChildren(h("p", {}, error.message));
    } finally {
      button.disabled = false;
    }
  }
}

/** Fills a list of what is wrong, one entry each; `netns` links to where it is. */
export function sick(list, troubles) {
  while (list.children.length > troubles.length) list.lastElementChild.remove();
  while (list.children.length < troubles.length) {
    list.append(
      h(
        "li",
        {},
        h("a", { class: "name" }),
        h("b"),
        h("span", { class: "says" }),
        h("span", { class: "look muted" }),
      ),
    );
  }
  troubles.forEach(({ netns, title, says, look, rate: now, minor }, at) => {
    setAttribute(list.children[at], "class", minor ? "minor" : null);
    const [name, what, sentence, next] = list.children[at].children;
    name.hidden = netns === null;
    setText(name, netns ?? "");
    setAttribute(name, "href", netns === null ? null : linkTo(netns));
    setText(what, now > 0 ? `${title} ${perSecond(now)}` : title);
    setText(sentence, says);
    setText(next, look ? `Look: ${look}` : "");
  });
}

function chart(way) {
  const now = h("span", { class: "now" });
  const total = h("span", { class: "muted total" });
  const most = s("text", { class: "axis", x: 4, y: 12 });
  const points = s("polyline", { class: way });
  const { width, height } = CHART;
  const svg = s(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${width} ${height + 16}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    s("path", { class: "axis-line", d: `M0 ${height - 1}H${width}M0 1H${width}` }),
    points,
  );
  const axis = s(
    "svg",
    { class: "axes", width: "100%", height: 14, "aria-hidden": "true" },
    s("text", { class: "axis", x: 0, y: 11 }, "a minute ago"),
    s("text", { class: "axis", x: "100%", y: 11, "text-anchor": "end" }, "now"),
  );
  const top = s("svg", { class: "axes", width: "100%", height: 14, "aria-hidden": "true" }, most);
  const title = way === "receive" ? "Receive" : "Transmit";
  const card = h(
    "section",
    { class: `card ${way}`, "aria-label": title },
    h("div", { class: "bar" }, h("h2", {}, title), now),
    total,
    top,
    svg,
    axis,
  );
  return { way, card, now, total, most, points };
}

/** A number to end an axis at. */
function nice(most) {
  if (!(most > 0)) return 0;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * unit).find((end) => end >= most);
}

function card(title, ...content) {
  return h("section", { class: "card", "aria-label": title }, h("h2", {}, title), content);
}

/** A small table; numbers are to the right. */
function grid(label, heads, rows, { numbers = [] } = {}) {
  const kind = (at) => (numbers.includes(at) ? "number" : null);
  const head = h(
    "tr",
    {},
    heads.map((text, at) => h("th", { scope: "col", class: kind(at) }, text)),
  );
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      row.map((cell, at) =>
        h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: kind(at) }, cell ?? "–"),
      ),
    ),
  );
  return h(
    "div",
    { class: "wide", role: "region", "aria-label": label, tabindex: "0" },
    h("table", { class: "grid" }, h("thead", {}, head), h("tbody", {}, body)),
  );
}

function interfaces(now, unit, live) {
  if (now.interfaces.length === 0)
    return h("p", { class: "muted" }, "None but lo: no packet comes in or out.");
  const rows = now.interfaces.map((one) => {
    const rates = live?.interfaces.get(one.name);
    const peer = one.peer ? [one.peer.netns, one.peer.interface].filter(Boolean).join("/") : "–";
    const state = one.running === null ? "–" : one.running ? "up" : "down";
    const odd = [
      one.drops?.some((drops) => drops > 0) && `${count(one.drops[0])}/${count(one.drops[1])} dropped`,
      one.errors?.some((errors) => errors > 0) && `${count(one.errors[0])}/${count(one.errors[1])} errors`,
      one.uncounted?.some((missed) => missed > 0) &&
        `${count(one.uncounted[0])}/${count(one.uncounted[1])} not counted`,
    ].filter(Boolean);
    return [
      one.name,
      h("span", { class: `mark ${state}` }, state),
      rate(rates?.receive?.[unit], unit),
      count(one.receive?.packets),
      rate(rates?.transmit?.[unit], unit),
      count(one.transmit?.packets),
      odd.join(", ") || "–",
      peer,
      (one.addresses ?? []).join(" ") || "–",
      [one.kind, one.mac, one.mtu && `MTU ${one.mtu}`, one.counted ?? "not counted"]
        .filter(Boolean)
        .join("  "),
    ];
  });
  const heads = [
    "Interface",
    "State",
    "Receive",
    "packets",
    "Transmit",
    "packets",
    "Dropped, errors",
    "Peer",
    "Addresses",
    "Device",
  ];
  return grid("Interfaces", heads, rows, { numbers: [2, 3, 4, 5] });
}

function symptoms(now, live) {
  const drops = now.row.drops === null ? "Drops are not counted here; netns-monitor doctor says why." : null;
  const list = now.symptoms.map((one) => {
    const present = live?.present.get(one.name) ?? 0;
    return h(
      "details",
      { "data-name": one.name, class: one.usual ? "usual" : "loss" },
      h(
        "summary",
        {},
        h("b", {}, one.title),
        " ",
        h("span", { class: "number" }, count(one.count)),
        present > 0 ? h("span", { class: "present" }, ` ${perSecond(present)}`) : null,
        one.usual ? h("span", { class: "muted" }, " usual") : null,
      ),
      h("p", {}, one.says),
      one.look ? h("p", { class: "muted" }, `Look: ${one.look}`) : null,
    );
  });
  const none = list.length === 0 && !drops ? h("p", { class: "muted" }, "Nothing was ever lost here.") : null;
  return [drops && h("p", { class: "muted" }, drops), none, list];
}

function protocols(now, before, seconds) {
  if (now.protocols.length === 0) return h("p", { class: "muted" }, "No packet yet.");
  const earlier = new Map((before?.protocols ?? []).map((one) => [`${one.family} ${one.protocol}`, one]));
  const all = now.protocols.reduce((sum, one) => sum + one.receive.packets + one.transmit.packets, 0);
  const rows = now.protocols.map((one) => {
    const name =
      one.family === "arp" || one.family === "other" ? one.family : `${one.family} ${one.protocol}`;
    const old = earlier.get(`${one.family} ${one.protocol}`);
    const packets = one.receive.packets + one.transmit.packets;
    const more =
      seconds > 0 ? (packets - (old ? old.receive.packets + old.transmit.packets : 0)) / seconds : null;
    return [
      name,
      bar(packets / all),
      perSecond(more),
      count(one.receive.packets),
      count(one.transmit.packets),
    ];
  });
  return grid("Protocols", ["Protocol", "Share", "Now", "Received", "Sent"], rows, { numbers: [2, 3, 4] });
}

function bar(share) {
  const box = s(
    "svg",
    { class: "share", width: 80, height: 10, role: "img", "aria-label": `${(share * 100).toFixed(1)} %` },
    s("rect", { class: "all", width: 80, height: 10, rx: 3 }),
  );
  if (share > 0)
    box.append(s("rect", { class: "part", width: Math.max(2, 80 * share).toFixed(1), height: 10, rx: 3 }));
  return box;
}

function sizes(sizes) {
  if (!sizes) return h("p", { class: "muted" }, "No packet yet.");
  const most = Math.max(1, ...sizes.receive, ...sizes.transmit);
  const names = [...sizes.bounds.map((bound) => `≤ ${size(bound)}`), "more"];
  const step = 52;
  const tall = 96;
  const svg = s("svg", {
    class: "bars",
    viewBox: `0 0 ${names.length * step} ${tall + 34}`,
    role: "img",
    "aria-label": names
      .map((name, at) => `${name} bytes: ${sizes.receive[at]} received, ${sizes.transmit[at]} sent`)
      .join("; "),
  });
  // By the logarithm, or a few thousand would hide a few.
  const high = (value) => (value > 0 ? 3 + (Math.log10(value + 1) / Math.log10(most + 1)) * (tall - 6) : 0);
  names.forEach((name, at) => {
    [
      ["receive", 6],
      ["transmit", 25],
    ].forEach(([way, shift]) => {
      const value = sizes[way][at];
      const tip = s("title", {}, `${name} bytes: ${count(value)} ${way === "receive" ? "received" : "sent"}`);
      svg.append(
        s(
          "rect",
          { class: way, x: at * step + shift, y: tall - high(value), width: 17, height: high(value), rx: 2 },
          tip,
        ),
      );
    });
    svg.append(s("text", { class: "axis", x: at * step + 24, y: tall + 13, "text-anchor": "middle" }, name));
    const sum = sizes.receive[at] + sizes.transmit[at];
    svg.append(
      s(
        "text",
        { class: "axis", x: at * step + 24, y: tall + 28, "text-anchor": "middle" },
        sum > 0 ? short(sum) : "",
      ),
    );
  });
  return [
    svg,
    h(
      "p",
      { class: "legend muted" },
      h("i", { class: "receive" }),
      " received ",
      h("i", { class: "transmit" }),
      " sent; bytes on the wire, heights by logarithm",
    ),
  ];
}

function tcp(now, per) {
  const { tcp } = now.row;
  if (!tcp) return h("p", { class: "muted" }, "Not counted here; netns-monitor doctor says why.");
  const rows = [
    ["connections opened", "opened"],
    ["connects failed", "failed"],
    ["segments sent again", "retransmitted"],
    ["resets", "resets"],
  ].map(([name, key]) => [name, per((one) => one.row.tcp?.[key]), count(tcp[key])]);
  const times = now.times
    ? [
        ["round trip", "round_trips"],
        ["handshake as client", "client_handshakes"],
        ["handshake as server", "server_handshakes"],
      ].map(([name, key]) => [
        name,
        quantile(now.times, key, 0.5),
        quantile(now.times, key, 0.99),
        count(now.times[key].reduce((sum, one) => sum + one, 0)),
      ])
    : [];
  const states = Object.entries(now.connections ?? {}).map(([state, number]) => `${number} ${state}`);
  return [
    grid("TCP", ["TCP", "Now", "Ever"], rows, { numbers: [1, 2] }),
    times.length > 0
      ? grid("Times of TCP", ["Time", "half within", "99 % within", "taken"], times, { numbers: [1, 2, 3] })
      : null,
    states.length > 0 ? h("p", {}, `Connections: ${states.join(", ")}.`) : null,
  ];
}

/** The upper bound of the place where so many of all are at or below. */
function quantile({ bounds, ...times }, key, part) {
  const counts = times[key];
  const all = counts.reduce((sum, one) => sum + one, 0);
  if (all === 0) return "–";
  let sum = 0;
  const at = counts.findIndex((one) => (sum += one) >= all * part);
  return at < bounds.length ? micros(bounds[at]) : `over ${micros(bounds.at(-1))}`;
}

function stack(now) {
  const rows = [
    ...Object.entries(now.figures),
    ...Object.entries(now.firewall_drops).map(([chain, drops]) => [
      `dropped by rules of the file, ${chain}`,
      drops,
    ]),
  ];
  const { conntrack } = now;
  const full = conntrack && conntrack.entries >= conntrack.limit;
  return [
    rows.length > 0
      ? grid(
          "Network stack",
          ["What", "Ever"],
          rows.map(([name, value]) => [name, count(value)]),
          { numbers: [1] },
        )
      : h("p", { class: "muted" }, "No queue and no table overflowed."),
    conntrack
      ? h(
          "p",
          {},
          `Connection tracking has ${count(conntrack.entries)} of ${count(conntrack.limit)}${full ? ": full, each new connection is dropped" : ""}.`,
        )
      : null,
    now.published.length > 0 ? h("p", {}, `Published: ${now.published.join(", ")}.`) : null,
    now.routes === null
      ? null
      : h(
          "p",
          {},
          now.routes.length > 0
            ? "Routes beside those of its addresses:"
            : "No route but those of its addresses: only its own subnets are reached.",
        ),
    now.routes?.length > 0 ? h("pre", {}, now.routes.join("\n")) : null,
  ];
}

function identity(now, row) {
  const entries = [
    ["State", `${row.state}${row.ours ? ", made by netns-monitor" : ""}`],
    ["Cookie", now.cookie],
    ["Inode", now.inode],
    ["Names", now.names.map(({ source, name }) => `${name} (${source})`).join(", ")],
    [
      "Containers",
      now.containers.map(({ runtime, id, name }) => `${name ?? id.slice(0, 12)} (${runtime})`).join(", "),
    ],
    ["Pod", now.pod],
    ["Unit", now.unit],
  ].filter(([, value]) => value !== null && value !== "");
  return h(
    "dl",
    { class: "identity" },
    entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))),
  );
}
