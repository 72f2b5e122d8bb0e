// The table of namespaces: sorted, filtered, and only as many rows as are seen.

import { $, h, line, s, setAttribute, setText } from "./dom.js";
import { HISTORY } from "./store.js";
import { count, linkTo, perSecond, rate } from "./words.js";

/** Height of a row in pixels, as in the style sheet. */
const ROW = 44;
/** Rows made beyond what is seen, at each end. */
const BEYOND = 8;
/** A row under the pointer or the focus stays where it is; else the order follows the numbers that often, in ms. */
const SORT = 2000;
const SPARK = { width: 84, height: 26 };

const COLUMNS = [
  { key: "netns", title: "Namespace", of: (netns) => netns.row.netns, up: true },
  { key: "receive", title: "Receive", of: (netns, unit) => netns.rate?.receive?.[unit] ?? -1 },
  { key: "transmit", title: "Transmit", of: (netns, unit) => netns.rate?.transmit?.[unit] ?? -1 },
  { key: "losses", title: "Lost", of: (netns) => smoothed(netns, "drop:") },
  { key: "tcp", title: "TCP trouble", of: (netns) => smoothed(netns, "tcp:") },
  { key: "trouble", title: "What is wrong", of: null },
];

/** What of this kind goes wrong, smoothed; then what ever did. */
function smoothed(netns, kind) {
  let now = 0;
  for (const [name, value] of netns.present) if (name.startsWith(kind)) now += value;
  const total =
    kind === "drop:" ? netns.row.losses : netns.row.tcp && netns.row.tcp.failed + netns.row.tcp.retransmitted;
  return now * 1e6 + (total ?? -1) / 1e6;
}

export class Table {
  constructor(store, view, { onView }) {
    this.store = store;
    this.view = view;
    this.onView = onView;
    this.order = [];
    this.sortedAt = 0;
    this.rows = [];
    this.scroll = $("scroll");
    this.body = $("rows");
    this.heads = COLUMNS.map((column) => this.head(column));
    $("heads").append(...this.heads.map(({ cell }) => cell));
    this.scroll.addEventListener("scroll", () => this.fill(), { passive: true });
    addEventListener("resize", () => this.fill());
    this.body.addEventListener("keydown", (event) => this.key(event));
    $("filter").addEventListener("input", (event) => onView({ filter: event.target.value }));
    $("only").addEventListener("change", (event) => onView({ only: event.target.checked }));
  }

  head(column) {
    const mark = h("span", { class: "mark", "aria-hidden": "true" });
    const press = () => {
      const same = this.view.sort === column.key;
      this.onView({ sort: column.key, up: same ? !this.view.up : column.up === true });
    };
    const button = h("button", { type: "button", onclick: press }, column.title, " ", mark);
    return { column, mark, cell: h("th", { scope: "col", class: column.key }, button) };
  }

  /** Takes up what is wanted to be seen. */
  show() {
    const { sort, up, filter, only } = this.view;
    for (const { column, mark, cell } of this.heads) {
      const is = column.key === sort;
      setAttribute(cell, "aria-sort", is ? (up ? "ascending" : "descending") : "none");
      setText(mark, is ? (up ? "▲" : "▼") : "");
    }
    if ($("filter").value !== filter) $("filter").value = filter;
    $("only").checked = only;
    this.sortedAt = 0;
    this.update();
  }

  /** After an event. */
  update() {
    const now = performance.now();
    const held = this.scroll.matches(":hover") || this.body.contains(document.activeElement);
    if (this.sortedAt === 0 || (!held && now - this.sortedAt >= SORT)) {
      this.order = this.sorted();
      this.sortedAt = now;
    } else {
      // The order stays, but not what is gone, and what came is at the end.
      const wanted = new Set(this.wanted());
      this.order = this.order.filter((netns) => wanted.delete(netns)).concat([...wanted]);
    }
    // The host and sums are lines, and no namespaces.
    const real = (list) => list.filter(({ row }) => row.state !== "host" && row.state !== "sum").length;
    const [all, some] = [real([...this.store.namespaces.values()]), real(this.order)];
    setText($("shown"), some === all ? count(all) : `${count(some)} of ${count(all)}`);
    $("none").hidden = this.order.length > 0;
    setAttribute($("table"), "aria-rowcount", this.order.length + 1);
    this.fill();
  }

  wanted() {
    const parts = this.view.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const { store, view } = this;
    return [...store.namespaces.values()].filter((netns) => {
      if (view.only && store.badness(netns) === 0) return false;
      if (parts.length === 0) return true;
      const { row } = netns;
      const wrong = store.troubles(netns).map((one) => one.title);
      const wired = row.interfaces.flatMap((one) => [one.name, ...view.where(row.netns, one.name)]);
      const text = [row.netns, ...row.aliases, ...wired, ...wrong].join("\n").toLowerCase();
      return parts.every((part) => text.includes(part));
    });
  }

  sorted() {
    const { sort, up, unit } = this.view;
    const column = COLUMNS.find(({ key }) => key === sort) ?? COLUMNS[5];
    const busy = (netns) => (netns.rate?.receive?.packets ?? 0) + (netns.rate?.transmit?.packets ?? 0);
    const of = column.of ?? ((netns) => this.store.badness(netns));
    const keyed = this.wanted().map((netns) => [of(netns, unit), busy(netns), netns]);
    const by = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    const sign = up ? 1 : -1;
    const equal = ([, a, x], [, b, y]) => b - a || by(x.row.netns, y.row.netns);
    return keyed.sort((a, b) => sign * by(a[0], b[0]) || equal(a, b)).map(([, , netns]) => netns);
  }

  /** Makes the rows that are seen. */
  fill() {
    const top = Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - BEYOND);
    const seen = Math.ceil(this.scroll.clientHeight / ROW) + 2 * BEYOND;
    const start = Math.min(top, Math.max(0, this.order.length - seen));
    const slice = this.order.slice(start, start + seen);
    while (this.rows.length < slice.length) this.rows.push(this.row());
    gap($("above"), start * ROW);
    gap($("below"), (this.order.length - start - slice.length) * ROW);
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.netns : null;
    slice.forEach((netns, at) => this.write(this.rows[at], netns, start + at));
    this.rows.forEach(({ line }, at) => {
      if (at < slice.length) {
        if (!line.isConnected) this.body.append(line);
      } else line.remove();
    });
    if (focused !== null) {
      const row = this.rows.find(({ name }) => name.dataset.netns === focused);
      if (row?.line.isConnected && document.activeElement !== row.name)
        row.name.focus({ preventScroll: true });
    }
  }

  row() {
    const cell = () => {
      const points = s("polyline");
      const spark = s(
        "svg",
        { class: "spark", width: SPARK.width, height: SPARK.height, "aria-hidden": "true" },
        points,
      );
      const now = h("span", { class: "now" });
      const total = h("span", { class: "total" });
      return { points, now, total, td: h("td", {}, spark, h("span", { class: "figures" }, now, total)) };
    };
    const name = h("a", { class: "name" });
    const tags = h("span", { class: "tags muted" });
    const [receive, transmit, losses, tcp] = [cell(), cell(), cell(), cell()];
    receive.td.className = "receive";
    transmit.td.className = "transmit";
    losses.td.className = "losses";
    tcp.td.className = "tcp";
    const title = h("b");
    const says = h("span", { class: "says" });
    const line = h(
      "tr",
      {},
      h("th", { scope: "row" }, name, tags),
      receive.td,
      transmit.td,
      losses.td,
      tcp.td,
      h("td", { class: "trouble" }, title, says),
    );
    return { line, name, tags, receive, transmit, losses, tcp, title, says };
  }

  write(row, netns, at) {
    const { row: data, rate: now, history } = netns;
    const { unit } = this.view;
    setAttribute(row.line, "aria-rowindex", at + 2);
    setAttribute(row.line, "class", health(this.store, netns));
    setText(row.name, data.netns);
    row.name.dataset.netns = data.netns;
    setAttribute(row.name, "href", linkTo(data.netns));
    setText(row.tags, tags(data).join(" · "));
    const of = (list) => list.map((one) => one?.[unit] ?? null);
    const [receive, transmit] = [now?.receive?.[unit], now?.transmit?.[unit]];
    figures(row.receive, rate(receive, unit), data.receive?.packets, of(history.receive), receive > 0);
    figures(row.transmit, rate(transmit, unit), data.transmit?.packets, of(history.transmit), transmit > 0);
    figures(row.losses, perSecond(now?.losses), data.losses, history.losses, now?.losses > 0);
    const tcp = data.tcp && data.tcp.failed + data.tcp.retransmitted;
    figures(row.tcp, perSecond(now?.tcp), tcp, history.tcp, now?.tcp > 0);
    const [worst] = this.store.troubles(netns);
    setText(row.title, worst ? worst.title : "");
    setText(row.says, worst ? worst.says : "");
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[
      event.key
    ];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = this.order.findIndex((netns) => netns.row.netns === event.target.dataset.netns);
    if (at < 0) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.order.length - 1, at + step)));
  }

  /** Puts the focus on the row at a place, wherever it is scrolled to. */
  focus(at) {
    const netns = this.order[at];
    if (!netns) return;
    const head = $("heads").offsetHeight;
    const { scrollTop, clientHeight } = this.scroll;
    if (at * ROW < scrollTop) this.scroll.scrollTop = at * ROW;
    else if ((at + 1) * ROW > scrollTop + clientHeight - head)
      this.scroll.scrollTop = (at + 1) * ROW - clientHeight + head;
    document.activeElement?.blur();
    this.fill();
    this.rows.find(({ name }) => name.dataset.netns === netns.row.netns)?.name.focus({ preventScroll: true });
  }
}

/** `bad` where something is lost, `warn` where something is not as it should be. */
export function health(store, netns) {
  const worst = store.badness(netns);
  return worst > 1 ? "bad" : worst > 0 ? "warn" : "well";
}

/** What is said of a namespace beside its name. */
export function tags(row) {
  const states = { detached: "without a name", host: "the host itself", sum: "all beyond the ceiling" };
  const known = states[row.state] ? [states[row.state]] : [];
  return [...known, ...row.aliases.filter((alias) => !alias.endsWith(`/${row.netns}`)).slice(0, 2)];
}

function gap(body, height) {
  const cell = body.firstElementChild.firstElementChild;
  body.hidden = height <= 0;
  cell.style.height = `${Math.max(0, height)}px`;
}

function figures({ points, now, total, td }, text, sum, values, some) {
  setText(now, text);
  setText(total, sum === null || sum === undefined ? "" : count(sum));
  setAttribute(total, "title", sum === null || sum === undefined ? null : `${count(sum)} in all`);
  const most = values.reduce((most, value) => Math.max(most, value ?? 0), 0);
  const padded = Array(HISTORY - values.length)
    .fill(null)
    .concat(values);
  setAttribute(points, "points", most > 0 ? line(padded, SPARK.width, SPARK.height, most) : "");
  td.classList.toggle("none", !some);
}
