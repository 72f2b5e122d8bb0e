// The wiring as a picture: the host, its bridges, and the namespaces that hang on them, with live rates.
//
// Of each bridge those namespaces are drawn that are in trouble, then those with most traffic; the others are one box.

import { s, setAttribute, setText } from "./dom.js";
import { count, linkTo, many, rate } from "./words.js";
import { health } from "./table.js";

/** Namespaces drawn of each bridge, and of all others together. */
const EACH = 12;
/** Bridges drawn. */
const BRIDGES = 8;
/** Who is drawn is chosen anew that often, in ms. */
const CHOOSE = 5000;
const AT_ONCE = 900;
/** Of more namespaces than these the ways do not move. */
const MOVING = 24;
/** A tile is a line higher where a note is to be shown. */
const TILE = { width: 178, height: 50, line: 16, gap: 14, stem: 40 };
const LEFT = { host: 150, bridge: 214 };

export class Picture {
  constructor(store, view, element, rule) {
    this.store = store;
    this.view = view;
    this.element = element;
    this.rule = rule;
    this.topology = null;
    this.drawn = "";
    this.chosenAt = 0;
    this.sick = "";
    this.tiles = [];
    this.sums = [];
    new ResizeObserver(() => this.draw(true)).observe(element);
  }

  /** Takes up the wiring as it is now. */
  take(topology) {
    this.topology = topology;
    this.draw(true);
  }

  /** After an event: rates, and now and then who is drawn. */
  update() {
    this.draw(false);
    const { store, view } = this;
    for (const { netns, interfaces, group, flow, edge } of this.tiles) {
      const found = store.namespaces.get(netns);
      const rates = found && interfaces.map((name) => found.interfaces.get(name));
      const sum = rates && added(rates);
      setText(
        flow,
        sum
          ? `↓ ${rate(sum.receive[view.unit], view.unit)}  ↑ ${rate(sum.transmit[view.unit], view.unit)}`
          : "",
      );
      setAttribute(
        group,
        "class",
        `tile ${found ? health(store, found) : ""}${interfacesDown(found, interfaces) ? " down" : ""}`,
      );
      setAttribute(edge, "stroke-width", width(sum));
      setAttribute(
        edge,
        "class",
        `edge ${sum && sum.receive.packets + sum.transmit.packets > 0 ? "busy" : ""}`,
      );
    }
    for (const { ends, text } of this.sums) {
      const sum = added(ends.map(([netns, name]) => store.namespaces.get(netns)?.interfaces.get(name)));
      setText(
        text,
        sum
          ? `↓ ${rate(sum.receive[view.unit], view.unit)}  ↑ ${rate(sum.transmit[view.unit], view.unit)}`
          : "",
      );
    }
  }

  draw(anew) {
    const { topology, element } = this;
    if (!topology || element.clientWidth === 0) return;
    const now = performance.now();
    // Who gets into trouble is drawn at once.
    const bad = [...this.store.namespaces].filter(([, netns]) => this.store.badness(netns) > 1);
    const sick = bad
      .map(([label]) => label)
      .sort()
      .join("\n");
    const wait = sick === this.sick ? CHOOSE : AT_ONCE;
    if (!anew && now - this.chosenAt < wait) return;
    this.sick = sick;
    this.chosenAt = now;
    const lanes = arranged(topology, this.store);
    const across = Math.max(
      1,
      Math.floor((element.clientWidth - LEFT.host - LEFT.bridge - 24) / (TILE.width + TILE.gap)),
    );
    const key = JSON.stringify([across, element.clientWidth, topology.links, topology.published, lanes]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.tiles = [];
    this.sums = [];
    const focused = element.contains(document.activeElement)
      ? document.activeElement.getAttribute("href")
      : null;
    element.replaceChildren(this.svg(topology, lanes, across));
    if (focused)
      [...element.querySelectorAll("a")]
        .find((a) => a.getAttribute("href") === focused)
        ?.focus({ preventScroll: true });
    const left = lanes.reduce((sum, lane) => sum + lane.rest.length, 0);
    const why =
      "those in trouble first, then those with most traffic; the rest is summed, and in the table below";
    setText(this.rule, left > 0 ? `At most ${EACH} namespaces of each bridge are drawn: ${why}.` : "");
    this.update();
  }

  svg(topology, lanes, across) {
    const wide = this.element.clientWidth;
    let y = 16;
    const placed = lanes.map((lane) => {
      const boxes = lane.tiles.length + (lane.rest.length > 0 ? 1 : 0);
      const height = Math.max(1, Math.ceil(boxes / across)) * pitch(lane) + 12;
      const top = y;
      y += Math.max(height, 84) + 8;
      return { lane, top, height };
    });
    const tall = Math.max(y, 150);
    const svg = s("svg", {
      class: placed.length > 0 && this.many(lanes) ? "map still" : "map",
      width: wide,
      height: tall,
      viewBox: `0 0 ${wide} ${tall}`,
      role: "group",
      "aria-label": label(topology, lanes),
    });
    svg.append(this.host(topology, tall));
    placed.forEach(({ lane, top }) => svg.append(this.lane(lane, top, across)));
    return svg;
  }

  /** Whether so much is drawn that movement would be a burden. */
  many(lanes) {
    return lanes.reduce((sum, lane) => sum + lane.tiles.length, 0) > MOVING;
  }

  host(topology, tall) {
    const parts = [
      s("rect", { class: "box host", x: 8, y: 16, width: LEFT.host - 30, height: tall - 32, rx: 8 }),
    ];
    let y = 40;
    const say = (text, className) => {
      parts.push(s("text", { x: 20, y, class: className }, clip(text, 17)));
      y += 17;
    };
    say(topology.host || "host", "title");
    const [four, six] = topology.forwards;
    if (four || six) say(`forwards ${four && six ? "IPv4, IPv6" : four ? "IPv4" : "IPv6"}`, "small");
    const ways = topology.links.filter(
      (link) => link.kind !== "bridge" && !link.bridge && link.addresses.length > 0 && !link.ours,
    );
    for (const link of ways.slice(0, 4)) {
      y += 6;
      say(link.name, link.running ? "strong" : "strong down");
      link.addresses.slice(0, 2).forEach((address) => say(address, "small"));
    }
    return s("g", {}, parts);
  }

  lane(lane, top, across) {
    const { bridge, title, notes, tiles, rest } = lane;
    const x = LEFT.host + LEFT.bridge;
    const group = s("g", { class: "lane" });
    group.append(s("path", { class: "trunk", d: `M${LEFT.host - 22} ${top + 17}H${LEFT.host}` }));
    const box = s("rect", {
      class: `box bridge${bridge ? "" : " none"}`,
      x: LEFT.host,
      y: top,
      width: LEFT.bridge - 34,
      height: 34 + notes.length * 16,
      rx: 8,
    });
    const lines = [title, ...notes].map((text, at) =>
      s(
        "text",
        { x: LEFT.host + 12, y: top + 23 + at * 17, class: at === 0 ? "title" : "small" },
        clip(text, 21),
      ),
    );
    group.append(box, ...lines);
    const all = [...tiles, ...(rest.length > 0 ? [null] : [])];
    const rows = Math.ceil(all.length / across);
    const height = pitch(lane);
    if (rows > 0) {
      group.append(
        s("path", {
          class: "trunk",
          d: `M${x - 34} ${top + 17}H${x - 16}V${top + 17 + (rows - 1) * height}`,
        }),
      );
    }
    for (let row = 0; row < rows; row += 1) {
      const y = top + 17 + row * height;
      const inRow = Math.min(across, all.length - row * across);
      group.append(
        s("path", { class: "trunk", d: `M${x - 16} ${y}H${x + (inRow - 1) * (TILE.width + TILE.gap) + 22}` }),
      );
    }
    all.forEach((tile, at) => {
      const left = x + (at % across) * (TILE.width + TILE.gap);
      const y = top + 17 + Math.floor(at / across) * height;
      group.append(tile ? this.tile(tile, left, y, high(lane)) : this.rest(rest, title, left, y, high(lane)));
    });
    return group;
  }

  tile({ netns, interfaces, addresses, notes }, x, y, height) {
    const edge = s("path", { class: "edge", d: `M${x + 22} ${y}V${y + TILE.stem}` });
    const flow = s("text", { class: "flow", x: x + 32, y: y + TILE.stem - 10 });
    const top = y + TILE.stem;
    const name = [netns, ...interfaces, ...addresses, ...notes].join(", ");
    const box = s(
      "a",
      { href: linkTo(netns), "aria-label": name },
      s("title", {}, name),
      s("rect", { class: "box", x, y: top, width: TILE.width, height, rx: 8 }),
      s("circle", { class: "state", cx: x + TILE.width - 14, cy: top + 14, r: 5 }),
      s("text", { class: "title", x: x + 12, y: top + 20 }, clip(netns, 19)),
      s(
        "text",
        { class: "small", x: x + 12, y: top + 38 },
        clip([...interfaces, ...addresses].join("  ") || "nothing comes in or out", 25),
      ),
      notes.length > 0
        ? s("text", { class: "small note", x: x + 12, y: top + 38 + TILE.line }, clip(notes.join("  "), 25))
        : null,
    );
    const group = s("g", { class: "tile" }, edge, flow, box);
    this.tiles.push({ netns, interfaces, group, flow, edge });
    return group;
  }

  rest(rest, title, x, y, height) {
    const top = y + TILE.stem;
    const text = s("text", { class: "flow", x: x + 32, y: y + TILE.stem - 10 });
    this.sums.push({ ends: rest, text });
    const say = `and ${many(rest.length, "more", "more")}`;
    return s(
      "g",
      { class: "tile rest" },
      s("path", { class: "edge", d: `M${x + 22} ${y}V${top}` }),
      text,
      s(
        "a",
        { href: `#/?q=${encodeURIComponent(title)}`, "aria-label": `${say} of ${title}, in the table` },
        s("rect", { class: "box", x, y: top, width: TILE.width, height, rx: 8 }),
        s("text", { class: "title", x: x + 12, y: top + 20 }, `+ ${count(rest.length)} more`),
        s("text", { class: "small", x: x + 12, y: top + 38 }, "summed; see the table"),
      ),
    );
  }
}

/** Lanes: bridges first, then what hangs on the host directly, pairs between namespaces, and what has no peer. */
function arranged(topology, store) {
  const lanes = new Map();
  const lane = (key, title, bridge = null) => {
    if (!lanes.has(key)) lanes.set(key, { key, title, bridge, notes: [], ends: [] });
    return lanes.get(key);
  };
  for (const link of topology.links.filter((link) => link.kind === "bridge")) {
    const notes = [...link.addresses.slice(0, 2)];
    if (link.nat) notes.push("NAT (masqueraded)");
    if (!link.running) notes.push("down");
    lane(`bridge ${link.name}`, link.name, link.name).notes = notes;
  }
  const published = new Map();
  for (const { netns, port } of topology.published)
    published.set(netns, [...(published.get(netns) ?? []), `⇠ ${port}`]);
  for (const { netns, interfaces } of topology.namespaces) {
    const wired = interfaces.filter((one) => one.kind !== "loopback");
    if (wired.length === 0) {
      lane("bare", "no link but lo").ends.push({ netns, interfaces: [], addresses: [], notes: [] });
    }
    for (const one of wired) {
      const peer = one.peer;
      const where = one.bridge
        ? lane(`bridge ${one.bridge}`, one.bridge, one.bridge)
        : peer?.netns === ""
          ? lane("host", "host directly")
          : peer?.netns
            ? lane("pairs", "between namespaces")
            : lane("none", "no veth pair");
      // At one of its interfaces, the first, a port of the host leads to it.
      const ports = one === wired[0] ? (published.get(netns) ?? []) : [];
      const to = peer?.netns ? [`⇄ ${peer.netns}`] : !one.bridge && peer ? [`⇄ ${peer.interface}`] : [];
      where.ends.push({
        netns,
        interfaces: [one.name],
        addresses: (one.addresses ?? []).slice(0, 1),
        notes: [...ports, ...to],
      });
    }
  }
  const weight = ({ netns }) => {
    const found = store.namespaces.get(netns);
    const busy = found?.rate ? (found.rate.receive?.packets ?? 0) + (found.rate.transmit?.packets ?? 0) : 0;
    // Coarse, so that the choice does not change with every packet.
    return found
      ? Math.round(Math.log10(1 + store.badness(found)) * 2) * 100 + Math.round(Math.log10(1 + busy) * 2)
      : 0;
  };
  const used = [...lanes.values()].filter(({ bridge, ends }) => ends.length > 0 || bridge);
  const order = (a, b) =>
    (b.bridge ? 1 : 0) - (a.bridge ? 1 : 0) ||
    b.ends.length - a.ends.length ||
    a.title.localeCompare(b.title);
  return used
    .sort(order)
    .slice(0, BRIDGES)
    .map(({ title, bridge, notes, ends }) => {
      const weighed = ends
        .map((end) => [weight(end), end])
        .sort(([a, x], [b, y]) => b - a || x.netns.localeCompare(y.netns, "en", { numeric: true }));
      const chosen = weighed
        .slice(0, EACH)
        .map(([, end]) => end)
        .sort((a, b) => a.netns.localeCompare(b.netns, "en", { numeric: true }));
      return {
        title,
        bridge,
        notes,
        tiles: chosen,
        rest: weighed.slice(EACH).map(([, end]) => [end.netns, end.interfaces[0] ?? ""]),
      };
    });
}

/** How high the tiles of a lane are. */
function high({ tiles }) {
  return TILE.height + (tiles.some(({ notes }) => notes.length > 0) ? TILE.line : 0);
}

/** From one row of them to the next. */
function pitch(lane) {
  return high(lane) + TILE.stem + 10;
}

function label(topology, lanes) {
  const words = lanes.map(({ title, tiles, rest }) => `${title} with ${count(tiles.length + rest.length)}`);
  return `The host ${topology.host}: ${words.join(", ") || "nothing is wired"}`;
}

function interfacesDown(netns, names) {
  return netns?.row.interfaces.some((one) => names.includes(one.name) && one.running === false) ?? false;
}

/** The sum of rates; null where none is known. */
function added(rates) {
  const known = rates.filter((one) => one?.receive && one.transmit);
  if (known.length === 0) return null;
  const sum = (way, unit) => known.reduce((sum, one) => sum + one[way][unit], 0);
  const both = (way) => ({ packets: sum(way, "packets"), bytes: sum(way, "bytes") });
  return { receive: both("receive"), transmit: both("transmit") };
}

function width(sum) {
  const packets = sum ? sum.receive.packets + sum.transmit.packets : 0;
  return packets > 0 ? (1.5 + Math.min(Math.log10(1 + packets), 6)).toFixed(1) : "1.5";
}

function clip(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}
