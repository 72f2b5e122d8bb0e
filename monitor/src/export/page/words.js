// Numbers and names as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count, every digit of it. */
export function count(value) {
  return value === null || value === undefined ? "–" : whole.format(value);
}

/** A number in three digits or so: `0`, `0.4`, `12`, `3.1 k`, `27 M`. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  if (value < 0.05) return "<0.1";
  if (value < 9.95) return value.toFixed(1).replace(/\.0$/, "");
  if (value < 999.5) return value.toFixed(0);
  const units = ["k", "M", "G", "T", "P", "E"];
  let unit = -1;
  let scaled = value;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  return `${scaled < 9.95 ? scaled.toFixed(1) : scaled.toFixed(0)} ${units[unit]}`;
}

/** A rate of traffic in the unit chosen. */
export function rate(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return unit === "bytes" ? `${short(value * 8)}${value * 8 >= 999.5 ? "" : " "}bit/s` : `${short(value)}/s`;
}

/** A rate of events. */
export function perSecond(value) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : `${short(value)}/s`;
}

/** Microseconds: `90 µs`, `1.5 ms`, `2 s`. */
export function micros(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(value % 1e6 ? 1 : 0)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(value % 1000 ? 1 : 0)} ms`;
  return `${value} µs`;
}

/** Bytes of one packet: `64`, `1.5 k`. */
export function size(value) {
  return value >= 4096 ? `${Math.round(value / 1024)} Ki` : String(value);
}

/** `1 namespace`, `2 namespaces`. */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

/** Where a namespace is shown. */
export function linkTo(netns) {
  return `#/netns/${encodeURIComponent(netns)}`;
}

/** The first sentence of a text. */
export function first(text) {
  const end = text.search(/[.:] /);
  return end < 0 ? text.replace(/\.$/, "") : text.slice(0, end);
}
