// The page: what is shown where, updates from the inspector, and keys.

import {byId, call, flat, h} from "./dom.js";
import {Exchanges} from "./exchanges.js";
import {exchangeView, logLines} from "./exchange.js";
import {composer} from "./composer.js";
import {findPlugin, pluginList, pluginView, routeList, routeView} from "./catalogue.js";

const MOST_LINES = 500;
const list = byId("list");
const detail = byId("detail");
const exchanges = new Exchanges(list);
const views = [...byId("views").querySelectorAll("a")];
const drafts = new Map();
let loaded = null;
let routes = [];
let lines = [];
let shown = 0; // counts what was shown, so that an answer that comes late does not replace something newer

const place = () => {
  const [view = "exchanges", key = "", exchange = ""] = location.hash.replace(/^#\/?/, "").split("/");
  return {view: views.some((link) => link.dataset.view === view) ? view : "exchanges", key: decoded(key), exchange};
};
const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // somebody has typed it
  }
};
const go = (view, key) => {
  location.hash = key === undefined ? `#/${view}` : `#/${view}/${encodeURIComponent(key)}`;
};

// What is shown.

function render() {
  const {view, key} = place();
  for (const link of views) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = view;
  document.body.classList.toggle("has-detail", key !== "" || view === "send" || view === "log");
  document.title = key ? `${key} · ${view} · Inspector` : `${view} · Inspector`;
  exchanges.select(view === "exchanges" && key ? Number(key) : null);
  RENDER[view](key);
}

const RENDER = {
  exchanges(key) {
    if (!list.contains(exchanges.items)) exchanges.show();
    if (key) showExchange(key);
    else put(h("p", {class: "empty"}, "Choose an exchange."));
  },
  async send(key) {
    exchanges.show();
    const turn = ++shown;
    const found = key ? await call("GET", `/api/exchanges/${key}`).catch(() => null) : null;
    if (turn === shown) put(composer(found?.exchange.request ?? null, (number) => go("exchanges", number)), "#target");
  },
  plugins(key) {
    list.replaceChildren(...pluginList(loaded, key));
    const plugin = findPlugin(loaded, key);
    put(plugin ? pluginView(plugin, routes, (draft) => {
      if (!routes.some((route) => route.id === draft.id)) drafts.set(draft.id, draft);
      go("routes", draft.id);
    }) : h("p", {class: "empty"}, key ? `No plugin ${key} is loaded.` : "Choose a plugin."));
  },
  routes(key) {
    const all = [...routes, ...drafts.values()];
    list.replaceChildren(...routeList(all, key));
    const route = all.find((one) => one.id === key);
    if (!route) put(h("p", {class: "empty"}, key ? `There is no route ${key}.` : "Choose a route."));
    else if (detail.querySelector("#route")?.dataset.place !== location.hash) showRoute(route);
  },
  log() {
    list.replaceChildren(h("p", {class: "empty"}, "What the runner logs outside of a plugin's run. The rest stands with the exchanges."));
    put(h("article", {}, [
      h("h1", {tabindex: "-1", id: "title"}, "The runner's log"),
      lines.length ? logLines([...lines].reverse()) : h("p", {class: "quiet"}, "Nothing yet."),
    ]));
  },
};

function put(content, focus) {
  shown++;
  const focused = detail.contains(document.activeElement) ? document.activeElement.id : null;
  detail.replaceChildren(...flat([back(), content]));
  const again = (focus && detail.querySelector(focus)) || (focused ? byId(focused) : null);
  again?.focus({preventScroll: true});
}

function back() {
  const {view, key} = place();
  return key && view !== "send" ? h("a", {class: "back", href: `#/${view}`}, "← back to the list") : null;
}

async function showExchange(key) {
  const turn = ++shown;
  try {
    const found = await call("GET", `/api/exchanges/${key}`);
    if (turn !== shown) return;
    const isNew = detail.dataset.key !== key;
    put(exchangeView(found, loaded !== null));
    detail.dataset.key = key;
    if (isNew) detail.scrollTop = 0;
    if (isNew && narrow.matches) byId("title")?.focus();
  } catch (error) {
    if (turn === shown) put(h("p", {class: "problem"}, error.message));
  }
}

async function showRoute(route) {
  const turn = ++shown;
  const {exchange} = place();
  const found = exchange ? await call("GET", `/api/exchanges/${exchange}`).catch(() => null) : null;
  if (turn !== shown) return;
  const changed = async (applied) => {
    drafts.delete(route.id);
    await loadRoutes();
    if (!applied) {
      detail.replaceChildren();
      render();
    }
  };
  const sent = (number) => go("exchanges", number);
  put(routeView({route, loaded, seen: found?.exchange.request, changed, sent}));
  byId("route").dataset.place = location.hash;
}

async function loadRoutes() {
  routes = await call("GET", "/api/routes").catch(() => routes);
  for (const id of routes.map((route) => route.id)) drafts.delete(id);
  if (["plugins", "routes"].includes(place().view)) render();
}

// Updates.

const stream = new EventSource("/api/updates");
stream.addEventListener("open", () => state("live", "live"));
stream.addEventListener("error", () => state("lost", "not connected"));
stream.addEventListener("gateway", (event) => {
  const {gateway, version} = JSON.parse(event.data);
  byId("gateway").textContent = `of ${gateway}, as APISIX ${version}`;
});
stream.addEventListener("update", (event) => {
  const update = JSON.parse(event.data);
  const {view, key} = place();
  if (update.cleared) {
    lines = [];
    exchanges.forget(new Set((update.exchanges ?? []).map((one) => one.number)));
  }
  if (update.loaded) showLoaded(update.loaded);
  if (update.lines) lines = [...lines, ...update.lines].slice(-MOST_LINES);
  exchanges.update(update.exchanges ?? []);
  if (update.routes) loadRoutes();
  if (view === "exchanges" && key && update.exchanges?.some((one) => String(one.number) === key)) showExchange(key);
  if ((view === "log" && update.lines) || (view === "plugins" && update.loaded)) render();
});

function showLoaded(told) {
  loaded = told;
  const count = loaded.problems.length;
  byId("trouble").hidden = !count;
  byId("trouble").textContent = count === 1 ? "1 plugin file does not load" : `${count} plugin files do not load`;
}

function state(kind, text) {
  byId("state").textContent = text;
  byId("state").className = `state ${kind}`;
}

// Keys.

const narrow = matchMedia("(max-width: 760px)");
const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  "/": () => (place().view === "exchanges" ? exchanges.find.focus() : null),
  e: () => byId("edit")?.click(),
  p: () => exchanges.toggle(),
  "?": () => byId("help").showModal(),
};

function move(by) {
  const links = [...list.querySelectorAll("#rows li:not([hidden]) a")];
  if (!links.length) return;
  const at = links.findIndex((link) => link === document.activeElement || link.hasAttribute("aria-current"));
  const next = links[at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by))];
  next.focus();
  if (!narrow.matches) location.hash = next.getAttribute("href");
}

/** Back to the list; out of a field, first, so that nobody loses what was typed there. */
function leave(element, typing) {
  const {view, key} = place();
  if (typing && element !== exchanges.find) {
    element.blur();
    return;
  }
  if (narrow.matches && key) go(view);
  (list.querySelector("[aria-current]") ?? list.querySelector("#rows li:not([hidden]) a"))?.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.target.closest("form")?.requestSubmit();
  } else if (event.key === "Escape" && !byId("help").open) {
    leave(event.target, typing);
  } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && !byId("help").open) {
    const inText = event.target.matches("pre") && event.key.startsWith("Arrow");
    const view = views[Number(event.key) - 1];
    if (view) view.click();
    else if (KEYS[event.key] && !inText) KEYS[event.key]();
    else return;
    event.preventDefault();
  }
});

list.addEventListener("click", (event) => {
  const link = event.target.closest("#rows a");
  if (link && event.detail === 0) requestAnimationFrame(() => detail.focus()); // chosen with Enter
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # is the place in the page
  detail.focus();
});
byId("help-button").addEventListener("click", () => byId("help").showModal());
addEventListener("hashchange", render);
render();
