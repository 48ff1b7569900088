// Shows a Grafana dashboard's JSON as it is, with what a Prometheus answers to its queries.
//
// The address says what: dashboard (of the JSON), prometheus (its address), scraped (how often it scrapes, as the data
// source in Grafana is told), and as in Grafana from, to, refresh and var-NAME.
// Each panel has data-state: drawn, empty (a query gave nothing) or failed; data-series, how many each query gave; and
// data-highest, the highest value.

import {h, stat, timeseries} from "./draw.js";
import {filled, interpolated, macros, milliseconds, moment, seriesName, step} from "./grafana.js";

const TYPES = {stat, timeseries};
const address = new URLSearchParams(location.search);
const dashboard = await (await fetch(address.get("dashboard"))).json();
const scraped = milliseconds(address.get("scraped") ?? "15s");
const variables = dashboard.templating.list.filter((variable) => variable.type !== "datasource");

async function ask(path, parameters) {
  const response = await fetch(`${address.get("prometheus")}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = await response.json();
  if (answer.status !== "success") throw new Error(answer.error);
  return answer.data;
}

/** What stands for each variable; its values are asked for anew, and can be chosen from. */
async function chosenVariables(range) {
  const chosen = {};
  for (const variable of variables) {
    const query = filled(variable.query.query, chosen);
    const [, selector, label] = /^label_values\((.+),\s*(\w+)\)$/.exec(query) ?? [];
    if (!label) throw new Error(`expected label_values(series, label), got ${query}`);
    const times = {start: range.from / 1000, end: range.to / 1000};
    const values = await ask(`label/${label}/values`, {"match[]": selector, ...times});
    const picked = address.getAll(`var-${variable.name}`);
    chosen[variable.name] = interpolated(variable, picked, values);
    showVariable(variable, values, picked);
  }
  return chosen;
}

function showVariable({name, label}, values, picked) {
  const options = ["All", ...values].map((value) => h("option", picked.includes(value) ? {selected: ""} : {}, value));
  const select = h("select", {name}, ...options);
  select.addEventListener("change", () => {
    address.delete(`var-${name}`);
    if (select.selectedIndex) address.append(`var-${name}`, select.value);
    location.search = address;
  });
  const old = document.querySelector(`[name="${name}"]`);
  if (old?.textContent === select.textContent) return;
  old?.closest("label").remove();
  document.getElementById("variables").append(h("label", {}, label, select));
}

async function answers(panel, range, replacements) {
  const interval = step(range.to - range.from, Math.round(panel.body.clientWidth), scraped);
  const all = {...replacements, ...macros(range.to - range.from, interval, scraped)};
  const from = Math.floor(range.from / interval) * interval;
  const to = Math.floor(range.to / interval) * interval;
  const found = await Promise.all(
    panel.targets.map(async (target) => {
      const times = {start: from / 1000, end: to / 1000, step: interval / 1000};
      const {result} = await ask("query_range", {query: filled(target.expr, all), ...times});
      return result
        .map(({metric, values}) => ({
          name: seriesName(target.legendFormat, metric),
          points: values.map(([time, value]) => [time * 1000, Number(value)]).filter(([, value]) => isFinite(value)),
        }))
        .filter(({points}) => points.length);
    }),
  );
  return {found, times: {from, to, step: interval}};
}

async function show(panel, range, replacements) {
  const {element, body} = panel;
  try {
    const {found, times} = await answers(panel, range, replacements);
    body.replaceChildren();
    const series = found.flat();
    if (series.length) TYPES[panel.type](body, panel, series, times);
    else body.append(h("p", {class: "message"}, "No data"));
    element.dataset.series = found.map((one) => one.length).join(" ");
    element.dataset.highest = Math.max(...series.flatMap(({points}) => points.map(([, value]) => value)));
    element.dataset.state = found.every((one) => one.length) ? "drawn" : "empty";
  } catch (error) {
    element.dataset.state = "failed";
    body.replaceChildren(h("p", {class: "message"}, error.message));
  }
}

function laidOut(panel) {
  const {x, y, w, h: height} = panel.gridPos;
  const style = `grid-area: ${y + 1} / ${x + 1} / span ${height} / span ${w}`;
  if (panel.type === "row") {
    document.querySelector("main").append(h("h2", {class: "row", style}, `⌄ ${panel.title}`));
    return [];
  }
  if (!TYPES[panel.type]) throw new Error(`the preview does not know panels of the type ${panel.type}`);
  const body = h("div", {class: "body"});
  const heading = h("h2", {title: panel.description}, panel.title);
  const element = h("section", {class: "panel", "aria-label": panel.title, style}, heading, body);
  document.querySelector("main").append(element);
  return [{...panel, element, body}];
}

async function refresh(panels) {
  const now = Date.now();
  const time = {from: address.get("from") ?? dashboard.time.from, to: address.get("to") ?? dashboard.time.to};
  const range = {from: moment(time.from, now), to: moment(time.to, now)};
  document.getElementById("time").textContent = `${time.from} to ${time.to}`;
  const replacements = await chosenVariables(range);
  await Promise.all(panels.map((panel) => show(panel, range, replacements)));
  setTimeout(refresh, milliseconds(address.get("refresh") ?? dashboard.refresh), panels);
}

document.title = dashboard.title;
document.querySelector("h1").textContent = dashboard.title;
await refresh(dashboard.panels.flatMap(laidOut));
