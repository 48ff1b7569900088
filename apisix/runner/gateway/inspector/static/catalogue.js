// The plugins that are loaded, and the routes, whose confs can be edited and tried.

import {alertLine, call, flat, h, pretty} from "./dom.js";
import {example, schemaView} from "./schema.js";

const matchKey = (name) => name.replaceAll("_", "").toLowerCase();
const EXT = ["ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp"];

/** The runner's plugins in a route: [{ext, index, name, value}]. */
function confs(value) {
  return EXT.flatMap((ext) => (value.plugins?.[ext]?.conf ?? []).map((one, index) => ({ext, index, ...one})));
}

export const findPlugin = (loaded, name) => loaded?.plugins.find((plugin) => matchKey(plugin.name) === matchKey(name));

function rows(list, items, selected) {
  return h("ol", {class: "rows", id: "rows"}, items.map(({id, title, about, href}) => h("li", {}, h("a", {
    class: "row simple", href, "aria-current": id === selected ? "true" : null,
  }, [h("span", {class: "target"}, title), h("span", {class: "outcome"}, about)]))));
}

export function pluginList(loaded, selected) {
  if (!loaded) {
    return [h("p", {class: "empty"}, "The runner has not told its plugins. Only one that apisix-runner dev has started does.")];
  }
  return flat([
    loaded.problems.map((problem) => h("p", {class: "problem"}, problem)),
    rows("plugins", loaded.plugins.map((plugin) => ({
      id: plugin.name, title: plugin.name, about: plugin.about.split("\n")[0] || plugin.phases.join(", "),
      href: `#/plugins/${encodeURIComponent(plugin.name)}`,
    })), selected),
  ]);
}

export function pluginView(plugin, routes, draft) {
  const users = routes.filter((route) => confs(route.value).some((one) => matchKey(one.name) === matchKey(plugin.name)));
  return h("article", {}, [
    h("h1", {tabindex: "-1", id: "title"}, plugin.name),
    plugin.about ? h("p", {class: "about"}, plugin.about) : null,
    h("div", {class: "actions"}, [
      h("button", {type: "button", class: "first", id: "try", onclick: () => draft(tryRoute(plugin, routes))}, "Try it in a route of its own"),
    ]),
    h("section", {class: "step"}, [
      h("h2", {}, "Conf"),
      plugin.schema ? schemaView(plugin.schema) : h("p", {class: "quiet"}, "It declares no class Conf: any text is a conf."),
    ]),
    h("section", {class: "step"}, [
      h("h2", {}, "Declared"),
      h("dl", {class: "asked"}, [
        h("dt", {}, "phases"), h("dd", {}, plugin.phases.join(", ")),
        h("dt", {}, "on_error"), h("dd", {}, plugin.on_error),
        h("dt", {}, "timeout"), h("dd", {}, plugin.timeout === null ? "none of its own" : `${plugin.timeout} s`),
        h("dt", {}, "variables"), h("dd", {}, plugin.variables.join(", ") || "none"),
        h("dt", {}, "file"), h("dd", {class: "file"}, plugin.file),
      ]),
    ]),
    h("section", {class: "step"}, [
      h("h2", {}, "Routes"),
      users.length
        ? h("ul", {class: "links"}, users.map((route) => h("li", {}, h("a", {href: `#/routes/${encodeURIComponent(route.id)}`}, routeTitle(route)))))
        : h("p", {class: "quiet"}, "No route uses it."),
    ]),
  ]);
}

function tryRoute(plugin, routes) {
  const name = matchKey(plugin.name).replace(/[^a-z0-9-]/g, "-");
  const ext = plugin.phases.some((phase) => phase.endsWith("request")) ? EXT[0] : EXT[2];
  const value = JSON.stringify(plugin.schema ? example(plugin.schema) : {});
  return {
    id: `try-${name}`.slice(0, 64),
    value: {
      uri: `/try/${name}`,
      desc: `tries the plugin ${plugin.name}`,
      plugins: {[ext]: {conf: [{name: plugin.name, value}]}},
      upstream: routes.find((route) => route.value.upstream)?.value.upstream ?? {type: "roundrobin", nodes: {"127.0.0.1:1980": 1}},
    },
    draft: true,
  };
}

const uris = (value) => value.uris ?? [value.uri ?? "/"];
const routeTitle = ({id, value}) => `${id}  ${uris(value).join(" ")}`;

export function routeList(routes, selected) {
  if (!routes.length) return [h("p", {class: "empty"}, "There are no routes.")];
  return [rows("routes", routes.map((route) => ({
    id: route.id, title: routeTitle(route),
    about: [route.draft ? "not applied yet" : "", confs(route.value).map((one) => one.name).join(", "), route.value.desc ?? ""].filter(Boolean).join(" · "),
    href: `#/routes/${encodeURIComponent(route.id)}`,
  })), selected)];
}

const OWN = ["id", "create_time", "update_time"];
const editable = (value) => Object.fromEntries(Object.entries(value).filter(([key]) => !OWN.includes(key)));
const compact = (text) => {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
};

/**
 * A route whose confs can be edited, applied and tried, with a new request or with that of an exchange that was seen.
 * `changed` is called when routes did, `sent` with the number of an exchange.
 */
export function routeView({route, loaded, seen, changed, sent}) {
  let value = editable(structuredClone(route.value));
  const {line, tell} = alertLine();
  const done = h("p", {class: "note", role: "status"});
  const whole = h("textarea", {id: "whole", rows: 16, spellcheck: "false", value: JSON.stringify(value, null, 2), oninput: () => {
    try {
      value = JSON.parse(whole.value);
      tell(null);
      editors.replaceChildren(...confEditors());
    } catch (error) {
      tell(`the route is not JSON: ${error.message}`);
    }
  }});
  const method = h("input", {
    id: "method", value: seen?.method ?? route.value.methods?.[0] ?? "GET", required: true, spellcheck: "false", autocomplete: "off",
  });
  const target = h("input", {
    id: "target", value: seen?.target ?? uris(route.value)[0].replace("*", "hello"), required: true, spellcheck: "false", autocomplete: "off",
  });
  const withRest = seen ? h("input", {type: "checkbox", id: "rest", checked: true}) : null;
  const editors = h("div", {});
  const path = `/api/routes/${encodeURIComponent(route.id)}`;
  const undo = h("button", {type: "button", id: "undo", hidden: !route.changed, onclick: () => guarded(async () => {
    await call("POST", `${path}/undo`);
    await changed(null);
  })}, "Undo all changes");
  const remove = h("button", {type: "button", id: "delete", hidden: Boolean(route.draft), onclick: () => guarded(async () => {
    await call("DELETE", path);
    await changed(null);
  })}, "Delete");

  function confEditors() {
    const all = confs(value);
    if (!all.length) return [h("p", {class: "quiet"}, "No plugin of the runner is configured here.")];
    return all.map(({ext, index, name, value: text}) => {
      const id = `conf-${ext}-${index}`;
      const shown = pretty(text);
      const plugin = findPlugin(loaded, name);
      const field = h("textarea", {id, class: "conf", rows: Math.min(16, shown.split("\n").length + 1), spellcheck: "false", value: shown, oninput: () => {
        value.plugins[ext].conf[index].value = compact(field.value);
        whole.value = JSON.stringify(value, null, 2);
      }});
      return h("div", {class: "conf-editor"}, [
        h("label", {for: id}, [h("strong", {}, name), " in ", ext]),
        field,
        plugin?.schema ? h("details", {}, [h("summary", {}, "what its conf may hold"), schemaView(plugin.schema)])
          : h("p", {class: "quiet"}, plugin ? "It declares no class Conf: any text is a conf." : "No plugin of this name is loaded."),
      ]);
    });
  }
  editors.append(...confEditors());

  async function apply() {
    tell(null);
    done.textContent = "";
    JSON.parse(whole.value);
    await call("PUT", path, value);
    await changed(route);
    remove.hidden = false;
    undo.hidden = Boolean(route.draft);
    done.textContent = "Applied, until apisix-runner dev ends. The file of the routes is as it was.";
  }

  async function guarded(action) {
    try {
      await action();
    } catch (error) {
      tell(error);
    }
  }

  async function tryIt(event) {
    event.preventDefault();
    await guarded(async () => {
      await apply();
      const request = {method: method.value.trim(), target: target.value.trim(), headers: host(value)};
      if (withRest?.checked) Object.assign(request, {headers: seen.headers, body: seen.body.text, raw: seen.raw});
      const {exchange} = await call("POST", "/api/send", request);
      sent(exchange);
    });
  }

  return h("article", {}, [
    h("h1", {tabindex: "-1", id: "title"}, `Route ${routeTitle({id: route.id, value})}`),
    route.value.desc ? h("p", {class: "about"}, route.value.desc) : null,
    h("form", {class: "form", id: "route", onsubmit: tryIt}, [
      editors,
      h("details", {}, [h("summary", {}, "the whole route"), h("label", {for: "whole"}, ["JSON, as the Admin API takes it", whole])]),
      h("div", {class: "pair"}, [
        h("label", {for: "method"}, ["Method", method]),
        h("label", {for: "target"}, ["Path and query", target]),
      ]),
      withRest ? h("label", {class: "check"}, [withRest, " with the headers and the body of the exchange that was seen",
        seen.raw === null && new TextEncoder().encode(seen.body.text).length < seen.body.length ? ", as far as it was kept" : ""]) : null,
      h("div", {class: "actions"}, [
        h("button", {class: "first", id: "apply-send"}, "Apply and send"),
        h("button", {type: "button", id: "apply", onclick: () => guarded(apply)}, "Apply"),
        undo,
        remove,
      ]),
      done,
      line,
    ]),
  ]);
}

/** A Host header that the route takes. */
function host(value) {
  const name = value.hosts?.[0] ?? value.host;
  return name ? [["Host", name.replace("*", "www")]] : [];
}
