// The page of the sandbox: shows what one person sees of the workspace and tells the stand-in what they do.
// Everything from outside becomes text nodes; nothing is ever parsed as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
let state = null;
let person = sessionStorage.getItem("person") || "U01DEMO";
let place = sessionStorage.getItem("place") || "";
let thread = "";
let shownView = "";
const drawn = new Map(); // what each part was drawn from, so that an unchanged part is left alone

// Small tools

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function fresh(part, source) {
  const text = JSON.stringify(source);
  if (drawn.get(part) === text) return false;
  drawn.set(part, text);
  return true;
}

async function act(what) {
  const answer = await fetch("/page/act", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ person, ...what }),
  });
  return answer.json();
}

// A lock, drawn rather than written: not every machine has a font with one.
function lock() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["viewBox", "0 0 12 14"], ["class", "lock"], ["role", "img"], ["aria-label", "private"]]) svg.setAttribute(name, value);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M3 6V4a3 3 0 0 1 6 0v2h.6c.8 0 1.4.6 1.4 1.4v4.2c0 .8-.6 1.4-1.4 1.4H2.4C1.6 13 1 12.4 1 11.6V7.4C1 6.6 1.6 6 2.4 6zm1.4 0h3.2V4a1.6 1.6 0 0 0-3.2 0z");
  svg.append(path);
  return svg;
}
const sign = (c) => (c.private ? lock() : "# ");

const safeUrl = (url) => (/^(https?:|mailto:)/i.test(url || "") ? url : null);
const channel = () => state.channels.find((c) => c.id === place);
const memberName = (id) => {
  const found = state.people.find((p) => p.id === id);
  return found ? found.real_name : id === "USLACKBOT" ? "Slackbot" : id;
};

// Slack's markup

const decoded = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
const emoji = {
  white_check_mark: "✅", x: "❌", warning: "⚠️", hourglass: "⌛", hourglass_flowing_sand: "⏳", rocket: "🚀",
  microscope: "🔬", email: "✉️", link: "🔗", brain: "🧠", mag: "🔍", tada: "🎉", information_source: "ℹ️",
  large_green_circle: "🟢", large_yellow_circle: "🟡", red_circle: "🔴", white_circle: "⚪", no_entry: "⛔",
  arrows_counterclockwise: "🔄", clock1: "🕐", octagonal_sign: "🛑", package: "📦", page_facing_up: "📄",
};
const MARKS = new RegExp(
  [
    /```\n?([\s\S]+?)\n?```/, /`([^`\n]+)`/, /<([^<>\n]+)>/, /(?<![\w*])\*(\S(?:[^*\n]*\S)?)\*(?![\w*])/,
    /(?<![\w_])_(\S(?:[^_\n]*\S)?)_(?![\w_])/, /(?<![\w~])~(\S(?:[^~\n]*\S)?)~(?![\w~])/, /:([a-z0-9_+-]+):/,
  ].map((mark) => mark.source).join("|"),
);

function mrkdwn(text) {
  const whole = document.createDocumentFragment();
  let quote = [];
  const lines = [];
  const close = () => {
    if (quote.length) whole.append(make("blockquote", {}, ...marked(quote.join("\n"))));
    quote = [];
  };
  const flush = () => {
    if (lines.length) whole.append(...marked(lines.join("\n")));
    lines.length = 0;
  };
  let fenced = false;
  for (const line of String(text).split("\n")) {
    const quoted = !fenced && /^(&gt;|>) ?/.exec(line);
    if (quoted) { flush(); quote.push(line.slice(quoted[0].length)); }
    else { close(); lines.push(line); }
    if ((line.match(/```/g) || []).length % 2) fenced = !fenced;
  }
  close();
  flush();
  return whole;
}

function marked(text) {
  const nodes = [];
  let rest = text;
  while (rest) {
    const found = MARKS.exec(rest);
    if (!found) break;
    if (found.index) nodes.push(...plain(rest.slice(0, found.index)));
    const [all, fence, code, angle, bold, italic, strike, short] = found;
    if (fence !== undefined) nodes.push(make("pre", {}, decoded(fence)));
    else if (code !== undefined) nodes.push(make("code", {}, decoded(code)));
    else if (angle !== undefined) nodes.push(pointed(angle));
    else if (bold !== undefined) nodes.push(make("b", {}, ...marked(bold)));
    else if (italic !== undefined) nodes.push(make("i", {}, ...marked(italic)));
    else if (strike !== undefined) nodes.push(make("s", {}, ...marked(strike)));
    else nodes.push(emoji[short] ? document.createTextNode(emoji[short]) : document.createTextNode(all));
    rest = rest.slice(found.index + all.length);
  }
  if (rest) nodes.push(...plain(rest));
  return nodes;
}

const plain = (text) => text.split("\n").flatMap((line, i) => [i ? make("br") : null, decoded(line)]).filter((n) => n !== null && n !== "");

function pointed(inner) {
  const [target, label] = inner.split(/\|(.*)/s);
  if (target[0] === "@") return make("span", { class: "mention" }, "@" + memberName(target.slice(1)));
  if (target[0] === "#") return make("span", { class: "mention" }, "#" + (label || state.names[target.slice(1)] || target.slice(1)));
  if (target.startsWith("!date^")) return document.createTextNode(decoded(label || target));
  if (target[0] === "!") return make("span", { class: "mention" }, "@" + (label || target.slice(1)));
  const url = safeUrl(decoded(target));
  return url ? anchor(url, decoded(label || target)) : document.createTextNode(decoded(label || target));
}

const anchor = (url, text) => make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, text);
const words = (text) => (text.type === "mrkdwn" ? mrkdwn(text.text) : text.text.replace(/:([a-z0-9_+-]+):/g, (all, short) => emoji[short] || all));

// Block Kit

function block(part, context) {
  const draw = {
    header: () => make("div", { class: "block header", role: "heading", "aria-level": 3 }, words(part.text)),
    divider: () => make("div", { class: "block divider", role: "separator" }),
    section: () => make("div", { class: "block section" },
      make("div", { class: "body" },
        part.text ? make("div", {}, words(part.text)) : null,
        part.fields ? make("div", { class: "facts" }, part.fields.map((f) => make("div", {}, words(f)))) : null),
      part.accessory ? make("div", { class: "accessory" }, element(part.accessory, part, context)) : null),
    context: () => make("div", { class: "block context" },
      part.elements.map((e) => (e.type === "image" ? picture(e) : make("span", {}, words(e))))),
    actions: () => make("div", { class: "block actions" }, part.elements.map((e) => element(e, part, context))),
    image: () => make("div", { class: "block image" }, part.title ? make("p", {}, words(part.title)) : null, picture(part)),
    rich_text: () => make("div", { class: "block" }, part.elements.map(rich)),
    input: () => field(part, context),
  }[part.type];
  return draw ? draw() : make("div", { class: "block context" }, `(${part.type})`);
}

function picture(part) {
  const file = part.slack_file && (part.slack_file.url || `/files/${part.slack_file.id}/image`);
  return make("img", { src: safeUrl(part.image_url) || file, alt: part.alt_text || "", loading: "lazy" });
}

function rich(part) {
  const inner = () => part.elements.map((e) => (e.elements ? rich(e) : run(e)));
  if (part.type === "rich_text_preformatted") return make("pre", {}, ...inner());
  if (part.type === "rich_text_quote") return make("blockquote", {}, ...inner());
  if (part.type === "rich_text_list") {
    return make(part.style === "ordered" ? "ol" : "ul", {}, part.elements.map((e) => make("li", {}, rich(e))));
  }
  return make("div", {}, ...inner());
}

function run(part) {
  let node = document.createTextNode(part.text || "");
  if (part.type === "link") node = safeUrl(part.url) ? anchor(part.url, part.text || part.url) : node;
  if (part.type === "user") node = make("span", { class: "mention" }, "@" + memberName(part.user_id));
  if (part.type === "channel") node = make("span", { class: "mention" }, "#" + (state.names[part.channel_id] || part.channel_id));
  if (part.type === "emoji") node = document.createTextNode(emoji[part.name] || `:${part.name}:`);
  for (const [style, tag] of [["code", "code"], ["bold", "b"], ["italic", "i"], ["strike", "s"]]) {
    if (part.style && part.style[style]) node = make(tag, {}, node);
  }
  return node;
}

function element(part, holder, context) {
  if (part.type === "image") return picture(part);
  if (part.type === "button") {
    const press = async (event) => {
      if (part.confirm && !window.confirm(`${part.confirm.title.text}\n\n${part.confirm.text.text}`)) return;
      const button = event.currentTarget;
      button.disabled = true;
      if (safeUrl(part.url)) window.open(part.url, "_blank", "noopener");
      await click(part, holder, context);
      button.disabled = false;
    };
    return make("button", { type: "button", class: part.style, "aria-label": part.accessibility_label, onclick: press }, words(part.text));
  }
  const name = part.placeholder ? part.placeholder.text : part.action_id;
  const input = control(part, holder, context, { "aria-label": name });
  input.addEventListener("change", () => click(part, holder, context, valueOf(input)));
  return input;
}

async function click(part, holder, context, value) {
  const answer = await act({
    act: "click", ...context, action_id: part.action_id, block_id: holder.block_id, value,
    values: context.view && $("modal").open ? filled() : undefined,
  });
  if (answer.error) say(`The app did not answer (${answer.error}).`);
}

// Fields of a form

function control(part, holder, context, extra = {}) {
  const stored = context.values?.[holder.block_id]?.[part.action_id]
    || { value: part.initial_value, selected_option: part.initial_option, selected_options: part.initial_options };
  const common = { ...extra, "data-block": holder.block_id, "data-action": part.action_id, "data-kind": part.type };
  const ghost = part.placeholder ? part.placeholder.text : "";
  switch (part.type) {
    case "plain_text_input": case "email_text_input": case "url_text_input": case "number_input": {
      const type = { email_text_input: "email", url_text_input: "url" }[part.type] || "text";
      const made = make(part.multiline ? "textarea" : "input", {
        ...common, placeholder: ghost, type: part.multiline ? null : type, autofocus: part.focus_on_load, spellcheck: "false",
      });
      made.value = stored.value || "";
      return made;
    }
    case "static_select": case "multi_static_select": case "overflow": {
      const many = part.type.startsWith("multi_");
      const chosen = many ? (stored.selected_options || []).map((o) => o.value) : [stored.selected_option?.value];
      const draw = (o) => make("option", { value: o.value, selected: chosen.includes(o.value) }, o.text.text);
      return make("select", { ...common, multiple: many },
        many ? null : make("option", { value: "" }, ghost || "Select an option"),
        part.option_groups ? part.option_groups.map((g) => make("optgroup", { label: g.label.text }, g.options.map(draw)))
          : part.options.map(draw));
    }
    case "conversations_select": case "channels_select": case "multi_conversations_select": case "multi_channels_select": {
      const many = part.type.startsWith("multi_");
      const chosen = [].concat(stored.selected_conversations || stored.selected_channels || stored.selected_conversation || stored.selected_channel || []);
      return make("select", { ...common, multiple: many },
        many ? null : make("option", { value: "" }, ghost || "Select a channel"),
        (context.offers?.[part.action_id] || []).map((id) => make("option", { value: id, selected: chosen.includes(id) },
          state.names[id] ? "#" + state.names[id] : "Direct message")));
    }
    case "users_select":
      return make("select", common, make("option", { value: "" }, ghost || "Select a person"),
        state.people.filter((p) => !p.is_bot).map((p) => make("option", { value: p.id, selected: stored.selected_user === p.id }, p.real_name)));
    case "external_select":
      return suggest(part, holder, context, common, stored.selected_option, ghost);
    case "checkboxes": case "radio_buttons": {
      const many = part.type === "checkboxes";
      const chosen = many ? (stored.selected_options || []).map((o) => o.value) : [stored.selected_option?.value];
      return make("div", { ...common, role: many ? "group" : "radiogroup" }, part.options.map((o) => make("label", { class: "choice" },
        make("input", { type: many ? "checkbox" : "radio", name: holder.block_id, value: o.value, checked: chosen.includes(o.value) }),
        make("span", {}, words(o.text), o.description ? make("small", {}, words(o.description)) : null))));
    }
    case "datepicker": case "timepicker": {
      const made = make("input", { ...common, type: part.type === "datepicker" ? "date" : "time" });
      made.value = stored.selected_date || stored.selected_time || "";
      return made;
    }
    default:
      return make("span", {}, `(${part.type})`);
  }
}

function suggest(part, holder, context, common, chosen, ghost) {
  const list = make("ul", { role: "listbox", id: `list-${holder.block_id}`, hidden: true });
  const input = make("input", {
    ...common, role: "combobox", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list",
    placeholder: ghost || "Type to search", spellcheck: "false",
  });
  const choose = (option) => {
    input.chosen = option;
    input.value = option ? option.text.text : "";
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
  };
  const pick = (option) => {
    choose(option);
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  choose(chosen);
  let asked = 0;
  const ask = async () => {
    const mine = ++asked;
    if (input.value.length < (part.min_query_length ?? 3)) { list.hidden = true; return; }
    const values = filled();
    delete values[holder.block_id];  // a choice that is made meanwhile must not be undone by what was sought before it
    const answer = await act({ act: "suggest", view: context.view, action_id: part.action_id, query: input.value, values });
    if (mine !== asked) return;
    list.replaceChildren(...(answer.options || []).map((option) => {
      const row = make("li", { role: "option", "aria-selected": "false", onmousedown: (e) => e.preventDefault(), onclick: () => pick(option) }, option.text.text);
      row.option = option;
      return row;
    }));
    list.hidden = !list.children.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  };
  let pause = 0;
  input.addEventListener("input", () => { input.chosen = null; clearTimeout(pause); pause = setTimeout(ask, 150); });
  input.addEventListener("focus", ask);
  input.addEventListener("blur", () => { list.hidden = true; });
  input.addEventListener("keydown", (event) => {
    const rows = [...list.children];
    const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const next = (at + (event.key === "ArrowDown" ? 1 : rows.length - 1) + (at < 0 && event.key === "ArrowUp" ? 1 : 0)) % rows.length;
      rows.forEach((row, i) => row.setAttribute("aria-selected", String(i === next)));
      event.preventDefault();
    } else if (event.key === "Enter" && !list.hidden && at >= 0) {
      pick(rows[at].option);
      event.preventDefault();
    } else if (event.key === "Escape" && !list.hidden) {
      list.hidden = true;
      event.preventDefault();
      event.stopPropagation();
    }
  });
  return make("div", { class: "suggest" }, input, list);
}

function field(part, context) {
  const id = `field-${part.block_id}`;
  const group = ["checkboxes", "radio_buttons"].includes(part.element.type);
  const notes = `${id}-hint ${id}-error`;
  const made = control(part.element, part, context, { id, "aria-describedby": notes });
  if (part.dispatch_action) made.addEventListener("change", () => {
    const value = valueOf(made);
    if (value || part.element.type !== "external_select") click(part.element, part, context, value);
  });
  const label = [words(part.label), part.optional ? make("span", { class: "optional" }, " (optional)") : null];
  return make(group ? "fieldset" : "div", { class: "field", "data-field": part.block_id },
    group ? make("legend", {}, ...label) : make("label", { for: id }, ...label),
    made,
    part.hint ? make("p", { class: "hint", id: `${id}-hint` }, words(part.hint)) : null,
    make("p", { class: "error", id: `${id}-error`, role: "alert" }));
}

function valueOf(node) {
  const input = node.dataset.kind ? node : node.querySelector("[data-kind]");
  switch (input.dataset.kind) {
    case "checkboxes": return [...input.querySelectorAll("input:checked")].map((box) => box.value);
    case "radio_buttons": return input.querySelector("input:checked")?.value || "";
    case "external_select": return input.chosen || "";
    default: return input.multiple ? [...input.selectedOptions].map((o) => o.value) : input.value;
  }
}

function filled() {
  const values = {};
  for (const input of $("fields").querySelectorAll("[data-kind]")) {
    const { block: id, action } = input.dataset;
    if (input.closest(".field")) values[id] = valueOf(input);
    else values[id] = { ...values[id], [action]: valueOf(input) };
  }
  return values;
}

// The modal

function drawModal() {
  const view = state.view;
  const dialog = $("modal");
  if (!view) {
    shownView = "";
    if (dialog.open) dialog.close();
    return;
  }
  const version = view.id + view.hash;
  if (version !== shownView) {
    const same = shownView.startsWith(view.id);
    const kept = same ? filled() : {};
    const sought = {};
    for (const input of same ? $("fields").querySelectorAll("input[role=combobox]") : []) if (!input.chosen) sought[input.dataset.block] = input.value;
    const focused = same ? document.activeElement?.dataset?.block : "";
    shownView = version;
    $("modal-title").replaceChildren(words(view.title));
    $("submit").hidden = !view.submit;
    $("submit").textContent = view.submit ? view.submit.text : "";
    $("cancel").textContent = view.close ? view.close.text : "Cancel";
    const context = { view: view.id, values: view.state.values, offers: view.offers };
    $("fields").replaceChildren(...view.blocks.map((part) => block(part, context)));
    for (const input of $("fields").querySelectorAll("input[data-kind$=text_input], textarea")) {
      if (typeof kept[input.dataset.block] === "string") input.value = kept[input.dataset.block];
    }
    for (const input of $("fields").querySelectorAll("input[role=combobox]")) {
      if (sought[input.dataset.block] && !input.chosen) input.value = sought[input.dataset.block];
    }
    if (focused) $("fields").querySelector(`[data-block="${focused}"]`)?.focus();
    if (!dialog.open) dialog.showModal();
    const first = $("fields").querySelector("[autofocus]") || $("fields").querySelector("input, select, textarea");
    if (first && !same) first.focus();
  }
  drawErrors(view.errors);
}

function drawErrors(errors) {
  $("modal-error").textContent = errors[""] || "";
  for (const box of $("fields").querySelectorAll(".field")) {
    const text = errors[box.dataset.field] || "";
    const place = box.querySelector(".error");
    if (place.textContent !== text) place.textContent = text;
    for (const input of box.querySelectorAll("[data-kind]")) {
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }
}

async function submit() {
  const button = $("submit");
  button.disabled = true;
  try {
    const answer = await act({ act: "submit", view: state.view.id, values: filled() });
    await refresh();
    if (answer.errors && Object.keys(answer.errors).length) $("fields").querySelector("[aria-invalid]")?.focus();
    else if (answer.error && $("modal").open && !$("modal-error").textContent) $("modal-error").textContent = answer.error;
  } finally {
    button.disabled = false;
  }
}

async function dismiss() {
  if (state.view) await act({ act: "close", view: state.view.id });
  await refresh();
}

// Messages

const clock = (ts) => new Date(Number(ts) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

function message(entry, inThread) {
  const app = Boolean(entry.bot_id);
  const name = memberName(entry.user);
  const context = { ts: entry.ts, channel: entry.channel || place };
  const parts = entry.blocks && entry.blocks.length
    ? entry.blocks.map((part) => block(part, context))
    : entry.text ? [make("div", { class: "block" }, mrkdwn(entry.text))] : [];
  const replies = !inThread && entry.reply_count
    ? make("button", { type: "button", class: "plain replies", onclick: () => { thread = entry.ts; draw(); } },
      entry.reply_count === 1 ? "1 reply" : `${entry.reply_count} replies`)
    : null;
  return make("article", { class: "message" + (entry.is_ephemeral ? " whisper" : ""), "data-ts": entry.ts },
    make("div", { class: "face" + (app ? " app" : ""), "aria-hidden": "true" }, name[0]),
    make("div", {},
      make("div", { class: "byline" }, make("b", {}, name), app ? make("span", { class: "tag" }, "APP") : null,
        make("time", { datetime: new Date(Number(entry.ts) * 1000).toISOString() }, clock(entry.ts)),
        entry.is_ephemeral ? make("span", { class: "only" }, "Only visible to you") : null,
        entry.edited ? make("span", { class: "edited" }, "(edited)") : null),
      ...parts, (entry.files || []).map(attachment), replies));
}

function attachment(file) {
  const url = new URL(file.url_private).pathname;
  const size = file.size < 1024 ? `${file.size} B` : file.size < 1048576 ? `${(file.size / 1024).toFixed(0)} kB` : `${(file.size / 1048576).toFixed(1)} MB`;
  const image = file.mimetype.startsWith("image/");
  return make("div", { class: "file" }, image ? make("p", {}, file.title) : null,
    make("a", { href: url, target: "_blank", rel: "noopener" },
      image ? make("img", { src: url, alt: file.title, loading: "lazy" })
        : make("span", { class: "card" }, make("b", {}, file.title), size)));
}

function drawStream() {
  const stream = $("stream");
  const here = channel();
  if (!fresh("stream", [place, person, here, place === "home" && state.home, place === "mail" && state.mails])) return;
  const low = stream.scrollHeight - stream.scrollTop - stream.clientHeight < 60;
  if (place === "home") {
    const context = { view: state.home?.id, values: state.home?.state.values };
    stream.replaceChildren(...(state.home ? state.home.blocks.map((part) => block(part, context)) : [empty("The app has not published its home tab yet.")]));
    return;
  }
  if (place === "mail") {
    stream.replaceChildren(mails());
    return;
  }
  const top = here.messages.filter((m) => !m.thread_ts || m.thread_ts === m.ts || m.subtype === "thread_broadcast");
  const all = [...top, ...here.whispers.filter((w) => !w.thread_ts)].sort((a, b) => a.ts.localeCompare(b.ts));
  const usage = state.commands.length ? state.commands[0].command : "/nomads";
  stream.replaceChildren(...(all.length ? all.map((m) => message(m, false)) : [empty("Nothing here yet. Type ", make("strong", {}, `${usage} submit`), " below and press Enter.")]));
  if (low) stream.scrollTop = stream.scrollHeight;
}

const empty = (...text) => make("p", { class: "empty" }, ...text);

function drawThread() {
  const here = channel();
  const first = here && here.messages.find((m) => m.ts === thread);
  $("thread").hidden = !first;
  if (!first) { thread = ""; drawn.delete("thread"); return; }
  const replies = [...here.messages, ...here.whispers].filter((m) => m.thread_ts === thread && m.ts !== thread)
    .sort((a, b) => a.ts.localeCompare(b.ts));
  if (!fresh("thread", [first, replies])) return;
  const box = $("replies");
  const low = box.scrollHeight - box.scrollTop - box.clientHeight < 60 && box.dataset.thread === thread;
  box.dataset.thread = thread;
  box.replaceChildren(message(first, true), make("div", { class: "block divider" }), ...replies.map((m) => message(m, true)));
  box.scrollTop = low ? box.scrollHeight : box.scrollTop;
}

function mails() {
  if (!state.mails.length) return empty("No mail has come yet.");
  const open = new Set([...document.querySelectorAll(".mails details[open]")].map((d) => d.dataset.number));
  return make("div", { class: "mails" }, [...state.mails].reverse().map((mail) => make("details",
    { "data-number": mail.number, open: open.has(String(mail.number)) },
    make("summary", {}, make("b", {}, mail.subject), make("span", {}, `from ${mail.from} · to ${mail.to}`)),
    make("div", { class: "paper" },
      mail.html ? make("iframe", { src: `/page/mail/${mail.number}`, title: mail.subject, sandbox: "allow-popups", loading: "lazy" }) : null,
      make("h3", {}, "Plain text"), make("pre", {}, mail.text)))));
}

// The rest of the screen

function drawSide() {
  const stable = [state.people, state.channels.map((c) => [c.id, c.name, c.app_is_member]), place, person, state.mails && state.mails.length, state.shortcuts, state.levers];
  if (!fresh("side", stable)) return;
  $("person").replaceChildren(...state.people.filter((p) => !p.is_bot).map((p) => make("option", { value: p.id, selected: p.id === person }, p.real_name)));
  const entry = (id, text, extra) => make("li", {}, make("button", { type: "button", "aria-current": place === id ? "page" : null, onclick: () => go(id) }, ...[text, extra].flat()));
  $("channels").replaceChildren(...state.channels.map((c) => entry(c.id, c.direct ? "NOMADS (direct)" : [sign(c), c.name])));
  const app = [entry("home", "Home tab")];
  if (state.mails) app.push(entry("mail", "Mailbox", make("span", { class: "count" }, String(state.mails.length))));
  for (const shortcut of state.shortcuts) {
    app.push(make("li", {}, make("button", { type: "button", title: shortcut.description, onclick: () => shortcutPressed(shortcut) }, `⚡ ${shortcut.name}`)));
  }
  $("app").replaceChildren(...app);
  $("breaking").hidden = !state.levers.length;
  $("levers").replaceChildren(...state.levers.map((lever, number) =>
    make("li", {}, make("button", { type: "button", title: lever.says, onclick: () => pull(number) }, lever.name, make("small", {}, lever.says)))));
}

async function pull(number) {
  const answer = await act({ act: "lever", number });
  say(answer.error ? `It did not break (${answer.error}).` : answer.said);
}

async function shortcutPressed(shortcut) {
  const answer = await act({ act: "shortcut", callback_id: shortcut.callback_id });
  say(answer.error ? `${shortcut.name}: ${answer.error}` : "");
}

async function go(id) {
  place = id;
  thread = "";
  sessionStorage.setItem("place", id);
  say("");
  draw();
  if (id === "home") {
    const answer = await act({ act: "home" });
    if (answer.error && answer.error !== "not_subscribed") say(`The app did not answer (${answer.error}).`);
  }
}

function draw() {
  if (!["home", "mail"].includes(place) && !channel()) place = state.channels[0].id;
  const here = channel();
  $("place").replaceChildren(...(place === "home" ? ["NOMADS · Home"] : place === "mail" ? ["Mailbox"] : here.direct ? ["NOMADS"] : [sign(here), here.name]));
  $("about").textContent = place === "mail" ? "What the sandbox's mail server received" : place === "home" ? "What the app shows you in its own tab"
    : here.archived ? "Archived" : here.app_is_member ? "NOMADS is in this channel" : "NOMADS is not in this channel";
  $("box").hidden = !here;
  drawSide();
  drawHints();
  drawStream();
  drawThread();
  drawModal();
}

function drawHints() {
  if (!state) return; // the first state has not come yet: whoever typed before it gets the hints with it
  const typed = $("line").value;
  $("hints").hidden = !typed.startsWith("/") || typed.includes(" ") || !state.commands.length;
  if (!fresh("hints", state.commands)) return;
  $("hints").replaceChildren(...state.commands.map((c) => make("button", {
    type: "button", onclick: () => { $("line").value = c.command + " "; $("line").focus(); drawHints(); },
  }, `${c.command} ${c.hint}`)));
}

const say = (text) => { $("said").textContent = text; };

async function send() {
  const typed = $("line").value.trim();
  if (!typed) return;
  if (!typed.startsWith("/")) {
    say("In the sandbox only commands do something; they begin with a slash, such as /nomads submit.");
    return;
  }
  say("");
  if (!state) await refresh(); // which channel it is typed in, the first state says
  const [, command, text] = /^(\S+)\s*([\s\S]*)$/.exec(typed);
  $("line").value = "";
  drawHints();
  const answer = await act({ act: "slash", command, text, channel: place });
  if (answer.error) say(`${command}: ${answer.error}`);
}

let running = null;
let again = false;
async function refresh() {
  if (running) { again = true; return running; }
  running = (async () => {
    do {
      again = false;
      const answer = await fetch(`/page/state?person=${encodeURIComponent(person)}`);
      if (!answer.ok) { person = "U01DEMO"; again = true; continue; }
      state = await answer.json();
      draw();
    } while (again);
  })();
  try { await running; } finally { running = null; }
}

function listen() {
  const source = new EventSource("/page/changes");
  source.onopen = () => { $("link").textContent = "live"; $("link").classList.add("live"); };
  source.onmessage = () => refresh().catch(() => {});
  source.onerror = () => { $("link").textContent = "not connected"; $("link").classList.remove("live"); };
}

$("box").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("line").addEventListener("input", drawHints);
$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("cancel").addEventListener("click", dismiss);
$("dismiss").addEventListener("click", dismiss);
$("modal").addEventListener("cancel", (event) => { event.preventDefault(); dismiss(); });
$("unthread").addEventListener("click", () => { thread = ""; draw(); });
$("person").addEventListener("change", (event) => {
  person = event.target.value;
  sessionStorage.setItem("person", person);
  thread = "";
  refresh();
});
refresh().then(listen);
