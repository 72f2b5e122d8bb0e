// Elements without markup: names are hostile, so text is only ever text.

const SVG = "http://www.w3.org/2000/svg";

/** An element by its id. */
export function $(id) {
  return document.getElementById(id);
}

/** An HTML element with attributes (`on…` are listeners, null leaves one out) and children (text, nodes, or lists). */
export function h(name, attributes = {}, ...children) {
  return made(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function s(name, attributes = {}, ...children) {
  return made(document.createElementNS(SVG, name), attributes, children);
}

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Sets text where it is another: what does not change is not laid out anew. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute where it is another; null takes it away. */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** The points of a small line: `values` oldest first, null where nothing is known. */
export function line(values, width, height, most) {
  const step = width / Math.max(values.length - 1, 1);
  const points = [];
  values.forEach((value, at) => {
    if (value === null || Number.isNaN(value)) return;
    const y = height - 1 - (most > 0 ? (Math.min(value, most) / most) * (height - 2) : 0);
    points.push(`${(at * step).toFixed(1)},${y.toFixed(1)}`);
  });
  return points.join(" ");
}
