// Differences: what a plugin changed, and two lists of headers side by side. A sign stands beside each colour.

import {h} from "./dom.js";

const SIGNS = {add: "+", del: "−", same: " "};
const SPOKEN = {add: "added: ", del: "removed: ", same: ""};

function line(kind, text) {
  return h("div", {class: `line ${kind}`}, [
    h("span", {class: "sign", "aria-hidden": "true"}, SIGNS[kind]),
    h("span", {class: "unseen"}, SPOKEN[kind]),
    h("span", {class: "text"}, text),
  ]);
}

function named(name, value) {
  return name ? `${name}: ${value}` : value;
}

/** What a plugin changed, part by part. */
export function changes(list) {
  return [...grouped(list)].map(([part, several]) => [
    h("p", {class: "label"}, part),
    h("div", {class: "diff"}, several.map((change) => lines(part, change))),
  ]);
}

function grouped(list) {
  const parts = new Map();
  for (const change of list) parts.set(change.part, [...(parts.get(change.part) ?? []), change]);
  return parts;
}

function lines(part, {name, before, after}) {
  if (part.endsWith("body")) return textDiff(before?.[0] ?? "", after?.[0] ?? "");
  const old = before ?? [];
  const fresh = after ?? [];
  const kept = old.filter((value) => fresh.includes(value));
  return [
    ...old.filter((value) => !kept.includes(value)).map((value) => line("del", named(name, value))),
    ...kept.map((value) => line("same", named(name, value))),
    ...fresh.filter((value) => !kept.includes(value)).map((value) => line("add", named(name, value))),
  ];
}

const MOST_COMPARED = 400;

/** Two texts, line by line: the longest common part stays, where they are short enough to look for it. */
export function textDiff(before, after) {
  const old = before ? before.split("\n") : [];
  const fresh = after ? after.split("\n") : [];
  if (old.length > MOST_COMPARED || fresh.length > MOST_COMPARED) {
    return [...old.map((text) => line("del", text)), ...fresh.map((text) => line("add", text))];
  }
  const common = Array.from({length: old.length + 1}, () => new Uint16Array(fresh.length + 1));
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      common[i][j] = old[i] === fresh[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const shown = [];
  let i = 0;
  let j = 0;
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      shown.push(line("same", old[i]));
      i++;
      j++;
    } else if (j >= fresh.length || (i < old.length && common[i + 1][j] >= common[i][j + 1])) {
      shown.push(line("del", old[i++]));
    } else {
      shown.push(line("add", fresh[j++]));
    }
  }
  return shown;
}

/** Headers, and how they differ from those before. Without `before` they are only listed. */
export function headers(label, after, before) {
  const rest = before ? before.map(([name, value]) => [name.toLowerCase(), name, value]) : null;
  const shown = after.map(([name, value]) => {
    if (!rest) return line("same", named(name, value));
    const at = rest.findIndex(([key, , old]) => key === name.toLowerCase() && old === value);
    if (at < 0) return line("add", named(name, value));
    rest.splice(at, 1);
    return line("same", named(name, value));
  });
  const gone = (rest ?? []).map(([, name, value]) => line("del", named(name, value)));
  if (!shown.length && !gone.length) return null;
  return [h("p", {class: "label"}, label), h("div", {class: "diff"}, gone, shown)];
}
