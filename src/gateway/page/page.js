"use strict";
// Asks the API every two seconds while the tab is seen, and shows what it says. Text from elsewhere
// (topics, agents, errors, payloads) only ever becomes text: nothing here makes markup of a string.
(() => {
  const EVERY = 2000, PATIENCE = 8000, SLOTS = 60, ROWS = 200, PICTURES = 24, RING = 10, COLUMNS = 60, LOG = 10;
  const KEY = "smidge.token", SVG = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);
  const now = () => performance.now();
  let timer = 0, round = null, last = null, failing = "";
  let history = null, stale = 0; // what the node remembers of its traffic, and until when it is the newest

  // --- words
  const called = new Map(); // what connected peers call themselves
  const tail = (id) => (id ? "…" + id.slice(-8) : "");
  const who = (id) => tail(id) + (called.has(id) ? " " + called.get(id) : "");
  const cut = (text, most) => (text.length > most ? text.slice(0, most) + "…" : text);
  const plural = (n, one, many = one + "s") => n + " " + (n === 1 ? one : many);
  const clock = () => new Date().toLocaleTimeString([], { hour12: false });
  function age(s) {
    const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "m"], [s % 60, "s"]];
    const first = parts.findIndex(([n]) => n > 0);
    return first < 0 ? "0s" : parts.slice(first, first + 2).map(([n, unit]) => n + unit).join(" ");
  }
  const number = (n) => (n >= 100 ? Math.round(n).toString() : n >= 10 ? n.toFixed(1) : n > 0 ? n.toFixed(2) : "0");
  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
    return (i ? number(n) : Math.round(n)) + " " + units[i];
  }
  const millis = (us) => (us == null ? "" : (us / 1000).toFixed(us < 10000 ? 2 : 1) + " ms");

  // --- elements
  function el(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
  function draw(name, attributes = {}, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }
  // What has not changed stays as it is: a selection or a focus there survives.
  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
  // Brings the children of `parent` in line with `items`, reusing those with the same key.
  function keyed(parent, items, keyOf, make, update) {
    const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    const seen = new Set();
    let place = parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      if (seen.has(key)) continue;
      seen.add(key);
      let child = old.get(key);
      old.delete(key);
      if (!child) {
        child = make(item);
        child.dataset.key = key;
      }
      if (child === place) place = place.nextElementSibling;
      else parent.insertBefore(child, place);
      update(child, item);
    }
    for (const child of old.values()) child.remove();
  }
  // On a narrow screen a row is folded until its first cell is pressed.
  const narrow = matchMedia("(max-width: 46rem)");
  narrow.addEventListener("change", () => {
    for (const button of document.querySelectorAll(".fold")) button.disabled = !narrow.matches;
  });
  function folding() {
    const button = el("button", { type: "button", class: "fold", "aria-expanded": "false" });
    button.disabled = !narrow.matches;
    button.addEventListener("click", () => {
      button.setAttribute("aria-expanded", button.closest("tr").classList.toggle("open"));
    });
    return button;
  }
  // A table's rows; a cell is [text, class, title].
  function rows(id, list, keyOf, cells) {
    const heads = [...$(id).parentElement.tHead.rows[0].cells];
    const make = () => el("tr", {}, ...heads.map((head, i) => {
      const cell = el("td", { "data-label": head.textContent }, ...(i ? [] : [folding()]));
      if ("keep" in head.dataset) cell.dataset.keep = "";
      return cell;
    }));
    keyed($(id), list.slice(0, ROWS), keyOf, make, (row, item) => {
      cells(item).forEach(([text, kind = "", title = ""], i) => {
        put(i ? row.cells[i] : row.cells[i].firstElementChild, text);
        if (row.cells[i].className !== kind) row.cells[i].className = kind;
        if (row.cells[i].title !== title) row.cells[i].title = title;
      });
    });
    put($(id + "-more"), list.length > ROWS ? `and ${list.length - ROWS} more: /v1/${id} has them all` : "");
  }

  // --- asking
  function headers() {
    const token = sessionStorage.getItem(KEY);
    return token ? { Authorization: "Bearer " + token } : {};
  }
  async function ask(path, signal) {
    const response = await fetch(path, { headers: headers(), cache: "no-store", signal });
    const record = await response.json();
    return { status: response.status, record };
  }

  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return;
    round?.abort();
    const mine = (round = new AbortController());
    const late = setTimeout(() => mine.abort(), PATIENCE);
    try {
      const paths = ["/v1/status", "/v1/peers", "/v1/mesh", "/v1/names", "/v1/mqtt"];
      const first = await ask(paths[0], mine.signal);
      if (first.status === 401) return login(first.record);
      if (first.status !== 200) throw new Error(first.record.error + ": " + first.record.hint);
      const at = now();
      if (at >= stale) paths.push("/v1/history");
      const rest = await Promise.all(paths.slice(1).map((path) => ask(path, mine.signal)));
      const wrong = rest.find((answer) => answer.status !== 200);
      if (wrong) throw new Error(wrong.record.error + ": " + wrong.record.hint);
      const [peers, mesh, names, mqtt, past] = rest;
      if (past) {
        history = past.record;
        stale = at + history.slot_s * 1000 - history.ended_ms_ago;
      }
      show(first.record, at, peers.record.peers, new Map(Object.entries(mesh.record.topics)), names.record.names);
      clients(mqtt.record);
      answered();
    } catch (error) {
      if (mine !== round || document.hidden) return;
      silent(error);
    } finally {
      clearTimeout(late);
    }
    if (mine === round) timer = setTimeout(refresh, EVERY);
  }

  function answered() {
    failing = "";
    $("alert").hidden = $("login").hidden = true;
    $("main").hidden = $("self").hidden = false;
    $("main").classList.remove("stale");
    put($("when"), `As of ${clock()}, asked again every ${EVERY / 1000} s.`);
  }
  function silent(error) {
    last = null; // a rate over a gap would be a guess
    $("main").classList.add("stale");
    badges([["no answer", "bad"]]);
    document.title = "no answer · smidge";
    const unreachable = error instanceof TypeError || error.name === "AbortError" || error instanceof SyntaxError;
    const why = unreachable ? "does not answer any more" : `refuses to answer: ${error.message}`;
    // Said once: a screen reader reads it out.
    if (failing !== why) {
      const old = $("main").hidden ? "" : " What is shown below is old.";
      put($("alert"), `As of ${clock()}, this node ${why}.${old} It is asked again every ${EVERY / 1000} s.`);
    }
    failing = why;
    $("alert").hidden = false;
  }
  function login(refusal) {
    const wrong = sessionStorage.getItem(KEY) !== null;
    sessionStorage.removeItem(KEY);
    unfollow();
    last = null;
    $("main").hidden = $("self").hidden = true;
    badges([["locked", "warn"]]);
    $("alert").hidden = !wrong;
    if (wrong) put($("alert"), refusal.error + ".");
    $("login").hidden = false;
    $("token").focus();
  }
  $("login").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("token").value.trim());
    $("token").value = "";
    refresh();
  });

  // --- showing
  function badges(list) {
    keyed($("badges"), list, ([text]) => text, ([text]) => el("li", {}, text), (item, [, kind, title = ""]) => {
      item.className = "badge " + (kind ?? "");
      item.title = title;
    });
  }
  function show(status, at, peers, meshes, names) {
    called.clear();
    for (const { peer, name } of peers) if (name) called.set(peer, name);
    document.title = (status.name ?? tail(status.peer)) + " · smidge";
    put($("peer"), status.peer);
    badges([
      ...(status.name ? [[status.name]] : []),
      [status.role],
      status.live ? ["live", "ok"] : ["not live", "bad", "no listener is up"],
      status.ready ? ["ready", "ok"] : ["not ready", "warn", "no peer is connected"],
    ]);
    const facts = [
      ["Version", status.version],
      ["Up", age(status.uptime_s)],
      ["Listening", status.listening.join(" ") || "nowhere: it is not live, its log tells why"],
      ...(status.not_listening.length
        ? [["Not listening", status.not_listening.map((missing) => `${missing.address}: ${missing.why}`).join("; ")]]
        : []),
      ["Peers", `${status.peers || "none"} connected, ${status.table} in the routing table`],
      ["Records", plural(status.records, "record") + " kept for the hash table"],
    ];
    keyed($("node"), facts.flatMap(([name, value]) => [[name, name], [name + "=", value]]), ([key]) => key,
      ([key]) => el(key.endsWith("=") ? "dd" : "dt", key === "Listening=" ? { class: "mono" } : {}),
      (element, [, text]) => { put(element, text); });
    traffic(status.traffic, at);
    const all = [...new Set([...status.topics, ...meshes.keys()])].sort();
    topics(all, meshes, peers, status.peer);
    choices(status.topics);
    rows("peers", peers, (peer) => peer.peer, (peer) => {
      const [link, ...more] = peer.connections;
      const relayed = link && peer.connections.every((link) => link.relayed);
      const inMesh = all.filter((topic) => meshes.get(topic)?.includes(peer.peer)).length;
      return [
        [who(peer.peer), "mono id", peer.peer],
        [link ? link.address + (more.length ? ` (+${more.length})` : "") : "", "mono far"],
        [link ? (link.outbound ? "us" : "them") : ""],
        relayed ? ["relayed", "warn", "every connection goes through a relay"] : [link ? "direct" : ""],
        [link ? age(link.age_s) : ""],
        [millis(peer.rtt_us), "n"],
        [peer.agent ?? "", "far"],
        peer.gossip === "off" ? ["gossip is off", "bad", peer.gossip_trouble] : [`${inMesh} of ${plural(peer.topics.length, "topic")}`, "", peer.topics.map((topic) => cut(topic, 60)).join(", ")],
      ];
    });
    const records = names.flatMap((name) =>
      name.records.length ? name.records.map((record) => ({ name, record })) : [{ name, record: null }]);
    rows("names", records, ({ name, record }) => name.name + " " + (record?.address ?? ""), ({ name, record }) => {
      if (!record) return [["no record", "warn"], [name.name, "mono far"], ["looking", "warn"], [""], [name.last_error ?? "", "far"]];
      const kind = { connected: "ok", own: "", spare: "", dialing: "warn", waiting: "bad" }[record.state] ?? "";
      const next = record.state === "waiting" ? `, again in ${number(record.retry_in_ms / 1000)} s` : "";
      const state = record.state === "own" ? "this node" : record.state + next;
      const error = record.state !== "connected" && record.last_error ? `${record.last_error} (${plural(record.failures, "failure")})` : "";
      return [[record.address, "mono far"], [name.name, "mono far"], [state, kind], [who(record.peer), "mono id", record.peer ?? ""], [error, "far"]];
    });
    if (!names.length) put($("names-more"), "No name is configured: this node waits to be dialed.");
    if (!peers.length) put($("peers-more"), "Nobody is connected.");
  }

  function clients(mqtt) {
    $("mqtt-card").hidden = !mqtt.listening.length;
    rows("mqtt", mqtt.clients, (client) => client.id, (client) => [
      [cut(client.id, 80), "mono far", client.id],
      [client.user ?? "", "far"],
      [client.version],
      [client.subscriptions.toString(), "n"],
      [client.waiting.toString(), client.waiting ? "n warn" : "n"],
    ]);
    if (!mqtt.clients.length) put($("mqtt-more"), "Nobody is connected.");
    put($("mqtt-totals"), `On ${mqtt.listening.join(", ")}: ${plural(mqtt.sessions, "session")}, ${plural(mqtt.retained, "retained message")}. Since the start: ` +
      `${plural(mqtt.received, "message")} of clients here, ${mqtt.sent} to them` + (mqtt.dropped ? `; ${mqtt.dropped} dropped for slow ones` : "") + ".");
  }

  const RATES = [
    ["received", "Received", "messages/s", number],
    ["published", "Published", "messages/s", number],
    ["received_bytes", "Payload in", "", (n) => bytes(n) + "/s"],
    ["published_bytes", "Payload out", "", (n) => bytes(n) + "/s"],
  ];
  function traffic(counts, at) {
    const since = last;
    last = { counts, at };
    keyed($("rates"), RATES, ([key]) => key, ([key, what]) => {
      const scale = el("span", { class: "dim scale", "aria-hidden": "true" }, el("span"), el("span"), el("span", {}, "now"));
      return el("div", { class: "rate", id: "rate-" + key }, el("span", { class: "dim" }, what), " ", el("b"), " ", el("span", { class: "dim" }), chart(), scale);
    }, (tile, [key, what, unit, shown]) => {
      const points = perSecond(history?.all, key);
      const current = since ? Math.max(0, counts[key] - since.counts[key]) / ((at - since.at) / 1000) : points.at(-1) ?? 0;
      put(tile.children[1], shown(current));
      put(tile.children[2], unit);
      const most = plot(tile.children[3], points);
      put(tile.children[4].children[0], `−${SLOTS / 6} min`);
      put(tile.children[4].children[1], `max ${shown(most)}${unit ? "/s" : ""}`);
      tile.children[3].setAttribute("aria-label", `${what}: ${shown(current)} ${unit} now, at most ${shown(most)} in the last ten minutes`);
    });
    put($("totals"), `Since the start: ${plural(counts.received, "message")} received (${bytes(counts.received_bytes)}), ` +
      `${counts.published} published (${bytes(counts.published_bytes)}), handed to peers ${plural(counts.handed, "time")}` +
      (counts.lost ? `; ${plural(counts.lost, "message")} lost to slow readers` : "") + ".");
  }

  // A chart of ten minutes, one step for each slot, that ends with the last one that is over.
  function chart(kind = "") {
    const svg = draw("svg", { viewBox: `0 0 ${SLOTS} 20`, preserveAspectRatio: "none", role: "img", class: kind });
    svg.append(draw("path", { class: "area" }), draw("path", { class: "spark" }), draw("path", { class: "base", d: `M0 20H${SLOTS}` }));
    return svg;
  }
  // Draws the steps, scaled to the highest of them, which it returns.
  function plot(svg, rates) {
    const most = Math.max(...rates, 0), from = SLOTS - rates.length;
    const height = (rate) => (19 - 17 * (most ? rate / most : 0)).toFixed(2);
    const line = rates.map((rate, i) => `${i ? "V" : `M${from} `}${height(rate)}H${from + i + 1}`).join("");
    svg.children[0].setAttribute("d", line && `${line}V20H${from}Z`);
    svg.children[1].setAttribute("d", line);
    return most;
  }
  const perSecond = (series, key) => (series ? series[key].map((count) => count / history.slot_s) : []);

  function topics(all, meshes, peers, self) {
    const views = all.slice(0, PICTURES).map((topic) => {
      const mesh = (meshes.get(topic) ?? []).slice().sort();
      const gossip = peers.filter((peer) => peer.topics.includes(topic) && !mesh.includes(peer.peer)).map((peer) => peer.peer);
      return { topic, mesh, gossip };
    });
    const trips = new Map(peers.map((peer) => [peer.peer, millis(peer.rtt_us)]));
    keyed($("topics"), views, ({ topic }) => topic, ({ topic }) => {
      const svg = draw("svg", { role: "img" });
      const title = el("h3", { class: "far", title: topic }, cut(topic, 80));
      return el("figure", {}, title, svg, chart("mini"), el("figcaption", { class: "dim" }));
    }, (figure, { topic, mesh, gossip }) => {
      const [, svg, rate, caption] = figure.children;
      const said = `${plural(mesh.length, "peer")} in the mesh` + (gossip.length ? `, ${gossip.length} gossip only` : "");
      const series = history && Object.hasOwn(history.topics, topic) ? history.topics[topic] : undefined;
      const [came, went] = ["received", "published"].map((key) => perSecond(series, key));
      const most = plot(rate, came.map((count, i) => count + went[i]));
      const flow = series ? `${number(came.at(-1) ?? 0)}/s in, ${number(went.at(-1) ?? 0)}/s out, max ${number(most)}/s` : "no message in ten minutes";
      rate.toggleAttribute("hidden", !series);
      rate.setAttribute("aria-label", `Traffic of ${cut(topic, 80)}: ${flow}`);
      put(caption, `${said}; ${flow}`);
      const drawn = JSON.stringify([self, mesh, gossip, [...called]]);
      if (svg.dataset.drawn !== drawn) {
        svg.dataset.drawn = drawn;
        svg.setAttribute("aria-label", `Mesh of ${cut(topic, 80)}: ${said}`);
        picture(svg, self, mesh, gossip);
      }
      for (const text of svg.querySelectorAll("text[data-trip]")) put(text, trips.get(text.dataset.trip) ?? "");
    });
    put($("topics-more"), all.length > PICTURES ? `and ${all.length - PICTURES} more: /v1/mesh has them all` : all.length ? "" : "No topic is followed.");
  }
  const label = (peer) => (called.get(peer) ? cut(called.get(peer), 14) : tail(peer));
  const node = (peer, kind, cx, cy, r) => {
    const dot = draw("circle", { class: "peer " + kind, cx, cy, r });
    dot.append(draw("title", {}, peer));
    return dot;
  };
  // More peers than a ring has room for names: two columns, a line each, those of the mesh first.
  function columns(svg, self, mesh, gossip) {
    const edges = draw("g"), nodes = draw("g");
    const all = [...mesh.map((peer) => [peer, ""]), ...gossip.map((peer) => [peer, "gossip"])].slice(0, COLUMNS);
    const left = mesh.length + gossip.length - all.length, rows = Math.ceil(all.length / 2), height = 13 * rows + (left > 0 ? 28 : 14);
    svg.setAttribute("viewBox", `0 0 300 ${height}`);
    const cy = 7 + 13 * rows / 2;
    all.forEach(([peer, kind], i) => {
      const right = i % 2, x = right ? 200 : 100, y = 14 + 13 * Math.floor(i / 2);
      edges.append(draw("line", { class: "edge " + kind, x1: 150, y1: cy, x2: x, y2: y }));
      nodes.append(node(peer, kind, x, y, 4), draw("text", { class: right ? "right" : "left", x: right ? 208 : 92, y: y + 3.5 }, label(peer)));
    });
    const me = draw("circle", { class: "me", cx: 150, cy, r: 8 });
    me.append(draw("title", {}, self + " (this node)"));
    nodes.append(me);
    if (left > 0) nodes.append(draw("text", { class: "dim", x: 150, y: height - 6 }, `and ${left} more`));
    svg.replaceChildren(edges, nodes);
  }
  // This node in the middle, the mesh around it, and further out who only gossips with us.
  function picture(svg, self, mesh, gossip) {
    if (mesh.length + gossip.length > RING) return columns(svg, self, mesh, gossip);
    const edges = draw("g"), nodes = draw("g"), cy = 100;
    svg.setAttribute("viewBox", mesh.length + gossip.length > 2 ? "0 0 300 200" : "0 68 300 70");
    const ring = (peers, rx, ry, kind, turn) => {
      peers.forEach((peer, i) => {
        const angle = Math.PI * (1 + turn + 2 * (i / peers.length));
        const x = 150 + rx * Math.cos(angle), y = cy + ry * Math.sin(angle);
        edges.append(draw("line", { class: "edge " + kind, x1: 150, y1: cy, x2: x, y2: y }));
        nodes.append(node(peer, kind, x, y, kind === "gossip" ? 5 : 7));
        const below = y > cy - 1 ? y + 18 : y - 22; // away from the middle
        nodes.append(draw("text", { x, y: below }, label(peer)), draw("text", { class: "dim", x, y: below + 11, "data-trip": peer }));
      });
    };
    const inner = mesh.length || 1, outer = gossip.length;
    // Turned by half of the least angle between the rings: no line to the outer one runs through somebody
    // on the inner one.
    const common = (a, b) => (b ? common(b, a % b) : a);
    const turn = common(inner, outer) / (inner * (outer || 1));
    ring(mesh, outer ? 68 : 96, outer ? 36 : 56, "", 0);
    ring(gossip, 118, 66, "gossip", turn);
    const me = draw("circle", { class: "me", cx: 150, cy, r: 10 });
    me.append(draw("title", {}, self + " (this node)"));
    nodes.append(me);
    svg.replaceChildren(edges, nodes);
  }

  // --- following and publishing
  let follower = null, followed = null, messages = [], heard = 0;
  // Those that are known are proposed; any other will do.
  function choices(list) {
    keyed($("known"), list.slice(0, ROWS), (topic) => topic, (topic) => el("option", { value: topic }), () => {});
    if (!choices.made && list.length) $("topic").value = list[0];
    choices.made = true;
  }
  function unfollow() {
    follower?.abort();
    follower = followed = null;
    put($("go"), "Follow");
    put($("following"), "");
  }
  async function follow(topic) {
    const mine = (follower = new AbortController());
    followed = topic;
    put($("go"), "Stop");
    put($("following"), "waiting for messages");
    try {
      const response = await fetch("/v1/topics/" + encodeURIComponent(topic), { headers: headers(), signal: mine.signal });
      if (!response.ok) throw new Error((await response.json()).error);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "", name = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the stream has ended");
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (line.startsWith("event: ")) name = line.slice(7);
          else if (line.startsWith("data: ")) note(name, JSON.parse(line.slice(6)));
        }
      }
    } catch (error) {
      if (mine !== follower) return;
      unfollow();
      put($("following"), "not followed any more: " + error.message);
    }
  }
  function note(name, record) {
    if (name === "message") {
      heard++;
      messages.unshift([clock(), record.local ? "this node" : tail(record.source) + (record.name ? " " + record.name : ""), record.base64 ? plural(record.bytes, "byte") + ", no text" : cut(record.data, 300)]);
    } else if (name === "lost") messages.unshift([clock(), "", plural(record.lost, "message") + " lost: this page was too slow"]);
    messages.length = Math.min(messages.length, LOG);
    if (!note.due) note.due = requestAnimationFrame(() => {
      note.due = 0;
      put($("following"), plural(heard, "message"));
      $("log").replaceChildren(...messages.map(([at, who, text]) =>
        el("li", {}, el("time", { class: "dim" }, at), el("span", { class: "mono" }, who), el("span", { class: "far" }, text))));
    });
  }
  $("follow").addEventListener("submit", (event) => {
    event.preventDefault();
    if (followed !== null) return unfollow();
    heard = 0;
    messages = [];
    $("log").replaceChildren();
    follow($("topic").value);
  });

  $("say").addEventListener("submit", async (event) => {
    event.preventDefault();
    const topic = $("topic").value;
    if (!topic) return $("topic").focus();
    $("publish").disabled = true;
    put($("said"), "on its way");
    try {
      const response = await fetch("/v1/topics/" + encodeURIComponent(topic) + "?timeout=5s", { method: "POST", headers: headers(), body: $("text").value });
      const receipt = await response.json();
      if (!response.ok) throw new Error(receipt.error);
      put($("said"), `handed to ${plural(receipt.peers, "peer")}` + (receipt.local ? ` and ${plural(receipt.local, "subscriber")} here` : ""));
      $("text").value = "";
    } catch (error) {
      put($("said"), "not published: " + error.message);
    } finally {
      $("publish").disabled = false;
    }
  });

  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($("peer").textContent);
      put($("copy"), "Copied");
    } catch {
      // Without TLS a browser lets no page write there: the id is selected instead.
      getSelection().selectAllChildren($("peer"));
      put($("copy"), "Selected");
    }
    setTimeout(() => put($("copy"), "Copy peer id"), 1500);
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      round?.abort();
      last = null;
      const topic = followed;
      if (topic !== null) {
        unfollow();
        followed = topic; // taken up again below
      }
    } else {
      if (followed !== null) follow(followed);
      refresh();
    }
  });
  refresh();
})();
