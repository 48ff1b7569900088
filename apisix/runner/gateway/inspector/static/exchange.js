// One exchange, from the client's request to the client's response, in the order it happened.

import {alertLine, body, clock, duration, h, pretty} from "./dom.js";
import {changes, headers} from "./diff.js";

/** `told` says whether the runner tells what its plugins do. */
export function exchangeView({exchange, lines}, told) {
  const {summary, request, calls, upstream, client} = exchange;
  const steps = [
    ...calls.map((one) => ({started: one.started, view: () => callView(one, told)})),
    ...upstream.map((one) => ({started: one.started, view: () => upstreamView(one, request)})),
  ].sort((a, b) => a.started - b.started);
  return h("article", {class: "exchange"}, [
    head(exchange),
    h("section", {class: "step"}, [
      h("h2", {}, "Request"),
      h("p", {class: "quiet"}, `${request.protocol} from ${request.remote} at ${clock(summary.started)}`),
      headers("headers", request.headers),
      request.body.length ? body("body", request.body) : null,
    ]),
    steps.map((step) => step.view()),
    clientView(summary, client, upstream.at(-1)),
    lines.length
      ? h("section", {class: "step"}, [h("h2", {}, "Also logged meanwhile"), logLines(lines)])
      : null,
  ]);
}

function head(exchange) {
  const {summary, request, route_id: route} = exchange;
  const {line, tell} = alertLine();
  const kind = summary.open ? "open" : summary.failed || summary.status >= 500 ? "bad" : "fine";
  const copy = h("button", {
    type: "button",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(curl(request));
        copy.textContent = "Copied";
      } catch {
        tell("the browser does not let this page write to the clipboard");
      }
    },
  }, "Copy as curl");
  return h("header", {class: "head"}, [
    h("h1", {tabindex: "-1", id: "title"}, [h("span", {class: "method"}, request.method), " ", request.target]),
    h("p", {class: `outcome ${kind}`}, [
      h("strong", {}, summary.open ? "open" : String(summary.status || "no answer")),
      ` · ${summary.outcome} · ${duration(summary.seconds)}`,
      route === null ? " · no route" : [" · ", h("a", {href: `#/routes/${encodeURIComponent(route)}`}, `route ${summary.route}`)],
    ]),
    h("div", {class: "actions"}, [
      h("a", {class: "button first", href: `#/send/${summary.number}`, id: "edit"}, "Edit and send again"),
      copy,
      route === null
        ? null
        : h("a", {class: "button", href: `#/routes/${encodeURIComponent(route)}/${summary.number}`, id: "edit-conf"}, "Edit the conf"),
    ]),
    line,
    glance(exchange.calls),
  ]);
}

const outcomeOf = (run) => (run === null ? "idle" : run.error ? "failed" : run.stopped ? "stopped" : "passed");

/** Every plugin of the exchange in one line; each leads to what it did. */
function glance(calls) {
  const plugins = calls.flatMap((call) => call.plugins);
  if (!plugins.length) return null;
  return h("ol", {class: "glance", "aria-label": "Plugins in order"}, plugins.map(({name, run}, index) => h("li", {}, h("button", {
    type: "button", class: outcomeOf(run),
    onclick: () => document.querySelectorAll(".plugin")[index].scrollIntoView({block: "start"}),
  }, [name, h("span", {}, run === null ? "" : run.error ? "failed" : run.stopped ? "stopped" : duration(run.seconds))]))));
}

function callView(call, told) {
  const longest = Math.max(...call.plugins.map((plugin) => plugin.run?.seconds ?? 0), 1e-9);
  const asked = call.asked.length ? `, asked ${call.asked.length} times` : "";
  return h("section", {class: "step"}, [
    h("h2", {}, call.plugin),
    h("p", {class: "quiet"}, [
      `The runner took ${duration(call.seconds)}${asked}`,
      call.answer ? `; it answered: ${call.answer}` : "",
    ]),
    call.failure ? h("p", {class: "problem"}, `The gateway says: ${call.failure}`) : null,
    call.plugins.length
      ? h("ol", {class: "plugins"}, call.plugins.map((plugin, index) => pluginView(plugin, longest, told ? absence(call, index) : "not told")))
      : h("p", {class: "quiet"}, "No plugins are configured here."),
    told || !call.asked.length ? null : [h("p", {class: "label"}, "asked the gateway"), askedView(call.asked)],
    told ? null : h("p", {class: "quiet"}, "This runner was not started by apisix-runner dev: it does not tell what its plugins do."),
  ]);
}

/** Why a plugin has told nothing. They run in order: the first that has not told is the one that runs, or hangs. */
function absence(call, index) {
  const first = call.plugins.findIndex((plugin) => plugin.run === null);
  const ended = call.plugins.some(({run}) => run !== null && (run.stopped || (run.error && !run.continues)));
  if (call.plugins.slice(index).some(({run}) => run !== null)) return "not told";
  if (call.id === null || ended) return "not run";
  if (call.seconds === null) return index === first ? "running" : "not yet";
  return call.failure && index === first ? "has not ended" : "not run";
}

const pluginName = (name) => h("a", {class: "plugin-name", href: `#/plugins/${encodeURIComponent(name)}`}, name);

function pluginView({name, conf, run}, longest, why) {
  const settings = h("details", {}, [h("summary", {}, "conf"), h("pre", {class: "code", tabindex: 0}, pretty(conf) || "(empty)")]);
  if (run === null) {
    return h("li", {class: "plugin idle"}, [
      h("h3", {}, [pluginName(name), h("span", {class: "badge"}, why)]),
      settings,
    ]);
  }
  const waited = run.asked.reduce((sum, one) => sum + one.seconds, 0);
  const bar = h("span", {class: "share", "aria-hidden": "true"}, h("span", {}));
  bar.firstChild.style.width = `${Math.max(1, (100 * run.seconds) / longest)}%`;
  return h("li", {class: `plugin ${outcomeOf(run)}`}, [
    h("h3", {}, [
      pluginName(name),
      run.error ? h("span", {class: "badge bad"}, run.continues ? "failed, goes on" : "failed") : null,
      run.stopped ? h("span", {class: "badge stop"}, "stopped") : null,
      !run.error && !run.stopped && !run.changes.length ? h("span", {class: "badge"}, "no change") : null,
      h("span", {class: "time"}, duration(run.seconds)),
    ]),
    bar,
    run.error ? h("p", {class: "problem"}, run.error) : null,
    run.traceback ? h("pre", {class: "code traceback", tabindex: 0, "aria-label": "traceback"}, run.traceback) : null,
    changes(run.changes, run.asked),
    run.asked.length
      ? [
        h("p", {class: "label"}, `asked the gateway, ${waited ? `waited ${duration(waited)}` : "before it ran"}`),
        askedView(run.asked),
      ]
      : null,
    run.lines.length ? [h("p", {class: "label"}, "logged"), logLines(run.lines)] : null,
    settings,
    h("p", {class: "quiet file"}, run.file),
  ]);
}

function askedView(asked) {
  return h("dl", {class: "asked"}, asked.map(({what, value}) => [
    h("dt", {}, what),
    h("dd", {}, value === null ? h("span", {class: "quiet"}, "not set") : value.text || h("span", {class: "quiet"}, "empty")),
  ]));
}

export function logLines(lines) {
  return h("ol", {class: "lines"}, lines.map((line) => h("li", {}, [
    h("span", {class: "quiet"}, clock(line.time)),
    " ",
    h("span", {class: `level ${line.level}`}, line.level),
    " ",
    h("span", {class: "text"}, line.text),
    " ",
    h("span", {class: "quiet"}, line.logger),
    line.traceback ? h("pre", {class: "code traceback", tabindex: 0}, line.traceback) : null,
  ])));
}

function upstreamView(call, request) {
  return h("section", {class: "step"}, [
    h("h2", {}, "Upstream"),
    h("p", {class: "quiet"}, `${call.node} took ${duration(call.seconds)}${call.status ? `; it answered ${call.status}` : ""}`),
    call.failure ? h("p", {class: "problem"}, call.failure) : null,
    h("h3", {}, "What it got"),
    h("div", {class: "diff"}, requestLine(call, request)),
    headers("headers, compared with the client's", call.headers, request.headers),
    call.body.length ? body("body", call.body) : null,
    call.status
      ? [h("h3", {}, "What it answered"), headers("headers", call.response_headers), body("body", call.response_body)]
      : null,
  ]);
}

function requestLine(call, request) {
  const now = `${call.method} ${call.target}`;
  const before = `${request.method} ${request.target}`;
  const line = (kind, sign, text) => h("div", {class: `line ${kind}`}, [
    h("span", {class: "sign", "aria-hidden": "true"}, sign), h("span", {class: "text"}, text),
  ]);
  return now === before ? line("same", " ", now) : [line("del", "−", before), line("add", "+", now)];
}

function clientView(summary, client, upstream) {
  if (!client.status) {
    return h("section", {class: "step"}, [h("h2", {}, "Client"), h("p", {class: "quiet"}, summary.open ? "It waits." : "It got no answer.")]);
  }
  return h("section", {class: "step"}, [
    h("h2", {}, "Client"),
    h("p", {class: "quiet"}, `It got ${client.status} after ${duration(summary.seconds)}`),
    upstream?.status
      ? headers("headers, compared with the upstream's", client.headers, upstream.response_headers)
      : headers("headers", client.headers),
    body("body", client.body),
  ]);
}

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** The request as a command for a shell. */
function curl(request) {
  const host = request.headers.find(([name]) => name.toLowerCase() === "host")?.[1] ?? "127.0.0.1";
  const words = ["curl", "-i", "-X", request.method, `http://${host}${request.target}`];
  for (const [name, value] of request.headers) {
    if (!["host", "content-length", "connection", "transfer-encoding"].includes(name.toLowerCase())) {
      words.push("-H", `${name}: ${value}`);
    }
  }
  if (request.body.length) words.push("--data-binary", request.body.text);
  return words.map(quoted).join(" ");
}
