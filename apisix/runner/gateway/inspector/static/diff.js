// Differences: what a plugin changed, and two lists of headers side by side. A sign stands beside each colour.

import {h, pretty} from "./dom.js";

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

/** What a plugin changed, part by part. What it asked for tells what a body was before. */
export function changes(list, asked) {
  return [...grouped(list)].map(([part, several]) => [
    h("p", {class: "label"}, part),
    h("div", {class: "diff"}, several.map((change) => lines(part, change, asked))),
  ]);
}

function grouped(list) {
  const parts = new Map();
  for (const change of list) parts.set(change.part, [...(parts.get(change.part) ?? []), change]);
  return parts;
}

function lines(part, {name, before, after}, asked) {
  if (part.endsWith("body")) {
    const seen = asked.find((one) => one.what === part)?.value;
    const whole = seen && new TextEncoder().encode(seen.text).length === seen.length;
    return bodyDiff(before?.[0] ?? (whole ? seen.text : ""), after?.[0] ?? "");
  }
  const old = before ?? [];
  const fresh = after ?? [];
  const kept = old.filter((value) => fresh.includes(value));
  return [
    ...old.filter((value) => !kept.includes(value)).map((value) => line("del", named(name, value))),
    ...kept.map((value) => line("same", named(name, value))),
    ...fresh.filter((value) => !kept.includes(value)).map((value) => line("add", named(name, value))),
  ];
}

/** Two bodies: where both are JSON, as it reads best. */
function bodyDiff(before, after) {
  const [old, fresh] = [pretty(before), pretty(after)];
  const both = old !== fresh && (before === "" || old !== before) && fresh !== after;
  return both ? textDiff(old, fresh, (text) => text.replace(/,$/, "")) : textDiff(before, after);
}

const MOST_COMPARED = 400;

/**
 * Two texts, line by line: the longest common part stays, where they are short enough to look for it. Lines are the same
 * where `key` of them is.
 */
function textDiff(before, after, key = (text) => text) {
  const old = before ? before.split("\n") : [];
  const fresh = after ? after.split("\n") : [];
  const same = (i, j) => key(old[i]) === key(fresh[j]);
  if (old.length > MOST_COMPARED || fresh.length > MOST_COMPARED) {
    return [...old.map((text) => line("del", text)), ...fresh.map((text) => line("add", text))];
  }
  const common = Array.from({length: old.length + 1}, () => new Uint16Array(fresh.length + 1));
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      common[i][j] = same(i, j) ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const shown = [];
  let i = 0;
  let j = 0;
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && same(i, j)) {
      shown.push(line("same", fresh[j]));
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
    const same = rest.findIndex(([key, , old]) => key === name.toLowerCase() && old === value);
    if (same >= 0) {
      rest.splice(same, 1);
      return line("same", named(name, value));
    }
    const changed = rest.findIndex(([key]) => key === name.toLowerCase());
    const [gone] = changed < 0 ? [] : rest.splice(changed, 1);
    return [gone ? line("del", named(gone[1], gone[2])) : null, line("add", named(name, value))];
  });
  const gone = (rest ?? []).map(([, name, value]) => line("del", named(name, value)));
  if (!shown.length && !gone.length) return null;
  return [h("p", {class: "label"}, label), h("div", {class: "diff"}, shown, gone)];
}
