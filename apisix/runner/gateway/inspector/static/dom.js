// Elements, and how values read. Text goes in as text only: nothing here, or on this page, parses HTML.

/** An element: h("a", {href: "#", class: "x", onclick: f}, "text", child, [children], null). */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...flat(children));
  return element;
}

export function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

export const byId = (id) => document.getElementById(id);

/** 0.0000351 s as "0.035 ms". */
export function duration(seconds) {
  if (seconds === null) return "…";
  const ms = seconds * 1000;
  if (ms < 1) return `${ms.toFixed(3)} ms`;
  if (ms < 1000) return `${ms.toFixed(1)} ms`;
  return `${seconds.toFixed(2)} s`;
}

export function clock(seconds) {
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

export function bytes(length) {
  return length === 1 ? "1 byte" : `${length.toLocaleString("en")} bytes`;
}

/** JSON with indentation where a text is JSON, else the text. */
export function pretty(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}

/** A body, as far as it was kept. */
export function body(what, {text, length}) {
  if (!length) return h("p", {class: "quiet"}, `${what}: none`);
  const kept = new TextEncoder().encode(text).length;
  const cut = kept < length ? `, the first ${bytes(kept)} are shown` : "";
  return [
    h("p", {class: "label"}, `${what}, ${bytes(length)}${cut}`),
    h("pre", {class: "code", tabindex: 0, "aria-label": what}, cut ? text : pretty(text)),
  ];
}

export class Refused extends Error {}

/** What the inspector answers to a request of this page. Throws Refused with its reason. */
export async function call(method, path, value) {
  const options = {method};
  if (value !== undefined) {
    options.headers = {"Content-Type": "application/json"};
    options.body = JSON.stringify(value);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused("the inspector does not answer; is apisix-runner dev still running?");
  }
  const answer = await response.json().catch(() => ({error: `status ${response.status}`}));
  if (!response.ok) throw new Refused(answer.error ?? `status ${response.status}`);
  return answer;
}

/** A line where problems are told. */
export function alertLine() {
  const line = h("p", {class: "problem", role: "alert"});
  return {
    line,
    tell: (error) => {
      line.textContent = error ? error.message ?? String(error) : "";
    },
  };
}
