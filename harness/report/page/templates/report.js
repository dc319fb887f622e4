"use strict";
// Everything a model wrote reaches the page through textContent alone.

const PAGE = 50; // examples of the list at a time, and with many cells as few as have
const SHARES = 3000; // scores together, which a browser draws without a pause
const WORDS = 1500; // texts of more words are compared at their ends only: the table of a longer one would stall the page

function make(name, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

function inflated(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

const unpacked = new Map();
function unpack(id) {
  if (!unpacked.has(id)) unpacked.set(id, inflated(document.getElementById(id).textContent));
  return unpacked.get(id);
}

// A whole prompt lies in a script file beside the page, which calls this, and is loaded when somebody asks for it; the
// page's policy lets it run by a number that stands there alone.
const prompts = new Map();
function kvgaugePrompt(sha256, packed) {
  prompts.set(sha256, inflated(packed));
}

async function wholePrompt(part, sha256) {
  if (!prompts.has(sha256)) {
    const src = [document.body.dataset.prompts, ...part.split("/"), `${sha256}.js`].map(encodeURIComponent).join("/");
    const [, nonce] = document.querySelector("meta[http-equiv]").content.match(/'nonce-(\w+)'/);
    await new Promise((onload, fail) => {
      const onerror = () => fail(new Error(`${decodeURIComponent(src)} is not beside this page`));
      document.head.append(make("script", { src, nonce, onload, onerror }));
    });
  }
  return prompts.get(sha256);
}

// Numbers by size, then texts; what is missing stands last whichever way.
function compare(a, b, way) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return way * (a - b);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return way * a.localeCompare(b, undefined, { numeric: true });
}

// A click on a column sorts it, numbers from the largest; the next click turns it round.
function sortsBy(header, numeric) {
  const way = header.ariaSort === "descending" || (header.ariaSort === null && !numeric) ? "ascending" : "descending";
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.ariaSort = way;
  return way === "ascending" ? 1 : -1;
}

const matches = (text, words) => words.every((word) => text.includes(word));
const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);

function bindTable(table) {
  const body = table.tBodies[0];
  const tools = table.parentElement.previousElementSibling;
  const [input, shown] = [tools.querySelector("input"), tools.querySelector(".shown")];
  const lines = [...body.rows];
  // Of lines that belong together the first alone has the name.
  let group = "";
  const grouped = !table.classList.contains("sortable");
  const texts = lines.map((line) => {
    const text = line.textContent.toLowerCase();
    if (line.classList.contains("start")) group = text;
    return grouped ? group + text : text;
  });
  input.addEventListener("input", () => {
    const words = wordsOf(input);
    lines.forEach((line, place) => (line.hidden = !matches(texts[place], words)));
    shown.textContent = words.length ? `${lines.filter((line) => !line.hidden).length} of ${lines.length}` : "";
  });
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    header.querySelector("button")?.addEventListener("click", () => {
      const numeric = header.classList.contains("number");
      const way = sortsBy(header, numeric);
      const value = (line) => {
        const cell = line.cells[column];
        const text = cell.dataset.by ?? cell.textContent.trim();
        if (text === "–" || text === "") return null;
        return isNaN(text) ? text : Number(text);
      };
      body.append(...[...lines].sort((a, b) => compare(value(a), value(b), way)));
    });
  });
}

// The list of a task's examples: sorted, filtered, a page at a time.
class Examples {
  constructor(root) {
    this.root = root;
    this.first = 0;
  }

  async open() {
    this.opened ??= this.unpack();
    return this.opened;
  }

  async unpack() {
    const index = (this.index = await unpack(this.root.dataset.index));
    this.rows = index.examples.map(([id, groups, reference, shares], place) => {
      const known = shares.filter((share) => typeof share === "number");
      const spread = known.length > 1 ? Math.max(...known) - Math.min(...known) : null;
      return { place, id, groups, reference, shares, spread, text: [id, ...groups, reference].join(" ").toLowerCase() };
    });
    this.shown = this.rows;
    this.page = Math.max(10, Math.min(PAGE, Math.floor(SHARES / index.cells.length)));
    const scored = index.metrics.length > 0;
    const choices = [["all", "all"], ["errors", "with an error"]];
    if (scored) choices.splice(1, 0, ["differ", "cells differ"], ...(index.full === null ? [] : [["below", "some cell below the full cache"]]));
    this.input = make("input", { type: "search", placeholder: "id, group, reference", autocomplete: "off", spellcheck: false });
    this.choice = make("select", {}, ...choices.map(([value, text]) => make("option", { value, textContent: text })));
    this.status = make("span", { className: "shown", role: "status" });
    for (const control of [this.input, this.choice]) control.addEventListener("input", () => this.filter());
    const tools = make("div", { className: "tools" }, make("label", {}, "Filter ", this.input), make("label", {}, "Show ", this.choice), this.status);
    if (scored) tools.append(make("span", { className: "legend", textContent: `${index.metrics[0][0]}, 0-100` }));

    const columns = [
      ["example", (row) => row.id, false],
      ...index.groups.map((name, place) => [name, (row) => row.groups[place], typeof this.rows[0]?.groups[place] === "number"]),
      ["reference", (row) => row.reference, false],
      ...(scored ? [["largest difference", (row) => row.spread, true]] : []),
      ...index.cells.map(([label, budget], place) => [`${label} ${budget}`, (row) => row.shares[place], true]),
    ];
    const heads = columns.map(([title, value, numeric], place) => {
      const button = make("button", { type: "button", textContent: title });
      const head = make("th", { scope: "col", className: (numeric ? "number" : "text") + (place ? "" : " key") }, button);
      button.addEventListener("click", () => {
        const way = sortsBy(head, numeric);
        this.rows.sort((a, b) => compare(value(a), value(b), way));
        this.filter();
      });
      return head;
    });
    this.body = make("tbody");
    const table = make("table", { className: "sortable" }, make("thead", {}, make("tr", {}, ...heads)), this.body);
    this.back = make("button", { type: "button", textContent: "← earlier" });
    this.on = make("button", { type: "button", textContent: "later →" });
    this.range = make("span", { role: "status" });
    this.back.addEventListener("click", () => this.turn(-this.page));
    this.on.addEventListener("click", () => this.turn(this.page));
    this.root.querySelector(".loading").remove();
    const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Examples" }, table);
    this.root.append(tools, scroll, make("div", { className: "pager" }, this.back, this.on, this.range));
    this.draw();
  }

  // Where a row stands among those that are shown; all are shown if it is not among them.
  position(row) {
    if (!this.shown.includes(row)) {
      [this.input.value, this.choice.value] = ["", "all"];
      this.filter();
    }
    return this.shown.indexOf(row);
  }

  filter() {
    const words = wordsOf(this.input);
    const full = this.index.full;
    const wanted = {
      all: () => true,
      errors: (row) => row.shares.includes("error"),
      differ: (row) => row.spread > 0,
      below: (row) => row.shares.some((share) => typeof share === "number" && share < row.shares[full]),
    }[this.choice.value];
    this.shown = this.rows.filter((row) => wanted(row) && matches(row.text, words));
    this.first = 0;
    this.draw();
  }

  turn(by) {
    this.first += by;
    this.draw();
  }

  draw() {
    const last = Math.min(this.first + this.page, this.shown.length);
    this.body.replaceChildren(...this.shown.slice(this.first, last).map((row, place) => this.line(row, this.first + place)));
    this.back.disabled = this.first === 0;
    this.on.disabled = last === this.shown.length;
    this.range.textContent = this.shown.length ? `${this.first + 1} to ${last} of ${this.shown.length.toLocaleString("en")}` : "no example";
    this.status.textContent = this.shown.length < this.rows.length ? `${this.shown.length} of ${this.rows.length}` : "";
  }

  line(row, position) {
    const open = make("button", { type: "button", className: "row", textContent: row.id, title: row.id });
    open.addEventListener("click", () => detail.ask(this, row));
    const cells = [
      make("td", { className: "key" }, open),
      ...row.groups.map((value) => make("td", { className: typeof value === "number" ? "number" : "text", textContent: value ?? "–" })),
      make("td", { className: "reference", textContent: row.reference, title: row.reference }),
    ];
    if (this.index.metrics.length) cells.push(make("td", { className: "number", textContent: row.spread === null ? "–" : percent(row.spread) }));
    return make("tr", {}, ...cells, ...row.shares.map(shareCell));
  }
}

const percent = (share) => (100 * share).toFixed(1);

function shareCell(share) {
  const value = make("span", { textContent: share === null ? "–" : share === "error" ? "error" : percent(share) });
  if (typeof share === "number") value.style.setProperty("--share", share);
  return make("td", { className: share === "error" ? "share error" : "share" }, value);
}

// Words, numbers, and every other character by itself, Chinese and Japanese ones too, with the blanks behind them.
const pieces = (text) => text.match(/(?:[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|[\p{L}\p{M}\p{N}_]+?(?=[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|[^\p{L}\p{M}\p{N}_]|$)|[^\s])\s*|\s+/gu) ?? [];

// Which pieces of a text belong to a longest common subsequence with another one.
function common(ours, theirs) {
  const bare = (list) => list.map((piece) => piece.trim());
  const [a, b] = [bare(ours), bare(theirs)];
  const kept = new Array(a.length).fill(false);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) kept[start++] = true;
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) [kept[--endA], endB] = [true, endB - 1];
  const [rows, columns] = [endA - start, endB - start];
  if (rows > WORDS || columns > WORDS) return kept;
  const wide = columns + 1;
  const length = new Uint16Array((rows + 1) * wide);
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      length[i * wide + j] =
        a[start + i] === b[start + j] ? length[(i + 1) * wide + j + 1] + 1 : Math.max(length[(i + 1) * wide + j], length[i * wide + j + 1]);
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (a[start + i] === b[start + j]) [kept[start + i], i, j] = [true, i + 1, j + 1];
    else if (length[(i + 1) * wide + j] >= length[i * wide + j + 1]) i++;
    else j++;
  }
  return kept;
}

// A text with the pieces marked that the other one has not.
function marked(text, other) {
  const ours = pieces(text);
  const kept = common(ours, pieces(other));
  const fragment = document.createDocumentFragment();
  for (let i = 0; i < ours.length; ) {
    let end = i + 1;
    while (end < ours.length && kept[end] === kept[i]) end++;
    const run = ours.slice(i, end).join("");
    fragment.append(kept[i] ? run : make("mark", { textContent: run }));
    i = end;
  }
  return fragment;
}

// One example: both ends of its prompt, references, and what every cell made of it.
const detail = {
  dialog: document.getElementById("example"),
  body: document.getElementById("example-body"),
  base: null, // what predictions are compared with: the place of a cell, "reference" or "nothing"

  // An example that was asked for gets its address, which opens it.
  ask(list, row) {
    location.hash = addressOf(list.root.closest(".part").id, row.id);
  },

  async show(list, position) {
    Object.assign(this, { list, position });
    const { index } = list;
    const row = list.shown[position];
    const block = await unpack(`${list.root.dataset.blocks}-${Math.floor(row.place / index.block)}`);
    if (this.list !== list || this.position !== position) return; // another one was asked for meanwhile
    this.example = block[row.place % index.block];
    document.getElementById("example-title").textContent = row.id;
    const groups = index.groups.map((name, place) => `${name} ${row.groups[place] ?? "–"}`);
    const tokens = this.example.tokens === null ? [] : [`${this.example.tokens.toLocaleString("en")} prompt tokens`];
    if (this.example.before > this.example.tokens) tokens.push(`${this.example.before.toLocaleString("en")} before its middle was cut`);
    document.getElementById("example-place").textContent = [`${position + 1} of ${list.shown.length}`, ...groups, ...tokens].join(" · ");
    document.getElementById("previous").disabled = position === 0;
    document.getElementById("next").disabled = position === list.shown.length - 1;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    this.body.scrollTop = 0;
  },

  step(by) {
    const position = this.position + by;
    const row = this.list.shown[position];
    if (row === undefined) return;
    history.replaceState(null, "", addressOf(this.list.root.closest(".part").id, row.id));
    this.show(this.list, position);
  },

  draw() {
    const { index } = this.list;
    const { references, ends } = this.example;
    const text = (value) => make("p", { className: "prose", textContent: value, tabIndex: 0 });
    const titled = (title, className, ...children) => make("div", { className: `block ${className}` }, make("h3", { textContent: title }), ...children);
    const blocks = [];
    if (ends.length === 1) blocks.push(titled("prompt", "ends", text(ends[0])));
    if (ends.length > 1) {
      const parts = ends.map((end, place) =>
        place === 0
          ? titled("prompt begins", "", text(`${end} …`))
          : place === ends.length - 1
            ? titled("prompt ends", "", text(`… ${end}`))
            : titled("within the prompt", "", text(`… ${end} …`)),
      );
      const both = make("div", { className: "ends" }, ...parts);
      blocks.push(both);
      if (this.example.prompt) blocks.push(this.whole(both, text));
    }
    if (references.length) blocks.push(titled(references.length > 1 ? "references" : "reference", "references", ...references.map(text)));

    const choices = [["nothing", "nothing"], ...(references.length ? [["reference", "the first reference"]] : [])];
    index.cells.forEach(([label, budget], place) => choices.push([String(place), `${label} ${budget}`]));
    if (!choices.some(([value]) => value === this.base)) this.base = index.full === null ? choices.at(references.length ? 1 : 0)[0] : String(index.full);
    const select = make("select", {}, ...choices.map(([value, title]) => make("option", { value, textContent: title, selected: value === this.base })));
    select.addEventListener("input", () => {
      this.base = select.value;
      this.cards(cards);
    });
    const cards = make("div", { className: "cards" });
    this.cards(cards);
    this.body.replaceChildren(...blocks, make("div", { className: "tools" }, make("label", {}, "Mark what differs from ", select)), cards);
  },

  // A button that puts the whole prompt in the place of its ends.
  whole(both, text) {
    const button = make("button", { type: "button", textContent: "Show the whole prompt" });
    const status = make("span", { className: "shown", role: "status" });
    button.addEventListener("click", async () => {
      try {
        const prompt = text(await wholePrompt(this.list.root.closest(".part").id, this.example.prompt));
        both.replaceChildren(make("div", { className: "block whole" }, make("h3", { textContent: "prompt" }), prompt));
        prompt.focus({ preventScroll: true });
        button.remove();
      } catch (error) {
        status.textContent = error.message;
      }
    });
    return make("div", { className: "tools" }, button, status);
  },

  cards(parent) {
    const { cells, references } = this.example;
    const other = this.base === "nothing" ? null : this.base === "reference" ? references[0] : (cells[Number(this.base)]?.text ?? null);
    parent.replaceChildren(...cells.map((cell, place) => this.card(cell, place, other)));
  },

  card(cell, place, other) {
    const { index } = this.list;
    const card = make("article", { className: String(place) === this.base ? "card base" : "card" });
    const head = make("header", {}, make("h3", { textContent: index.cells[place].join(" ") }));
    card.append(head);
    if (cell === null) {
      card.append(make("p", { className: "meta", textContent: "no record" }));
      return card;
    }
    const scores = index.metrics.filter(([, , name]) => name in cell.scores);
    const shown = ([, maximum, name], of = cell) => `${Number(of.scores[name].toFixed(3))} of ${maximum}`;
    if (scores.length) head.append(make("span", { className: "score", textContent: shown(scores[0]), title: scores[0][0] }));
    const meta = scores.slice(1).map((metric) => `${metric[0]} ${shown(metric)}`);
    if (cell.retention !== undefined) meta.push(`${percent(cell.retention)} % of the entries`);
    if (cell.alias) meta.push(`same entries as ${cell.alias}`);
    card.append(make("p", { className: "meta", textContent: meta.join(" · ") }));
    if (cell.error) card.append(make("p", { className: "prose error", textContent: cell.error }));
    const answers = cell.samples ?? [cell];
    answers.forEach((answer, at) => {
      if (cell.samples) {
        const own = scores.filter(([, , name]) => name in answer.scores).map((metric) => `${metric[0]} ${shown(metric, answer)}`);
        card.append(make("p", { className: "meta", textContent: [`answer ${at + 1} of ${answers.length}`, ...own].join(" · ") }));
      }
      if (answer.text === undefined || answer.text === null) {
        if (!cell.error) card.append(make("p", { className: "prose", textContent: `token ids: ${(answer.ids ?? []).join(" ")}` }));
        return;
      }
      const text = make("p", { className: "prose", tabIndex: 0 });
      text.append(other === null || String(place) === this.base ? answer.text : marked(answer.text, other));
      card.append(text);
    });
    return card;
  },
};

document.getElementById("previous").addEventListener("click", () => detail.step(-1));
document.getElementById("next").addEventListener("click", () => detail.step(1));
document.getElementById("close").addEventListener("click", () => detail.dialog.close());
// The address of a closed example is that of its part again, without a jump.
detail.dialog.addEventListener("close", () => history.replaceState(null, "", location.hash.split("?example=")[0]));
detail.dialog.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select")) return;
  if (event.key === "ArrowLeft") detail.step(-1);
  if (event.key === "ArrowRight") detail.step(1);
});

for (const table of document.querySelectorAll("main table:not(.matrix)")) bindTable(table);
const lists = new Map([...document.querySelectorAll(".examples")].map((root) => [root, new Examples(root)]));
const jump = document.getElementById("jump");
const addressOf = (part, example) => `#${part}?example=${encodeURIComponent(example)}`;

// The methods of a part that are looked at: those that match any of the words, and in front those that were clicked.
for (const part of document.querySelectorAll(".part")) {
  const input = part.querySelector(".methods input");
  if (!input) continue;
  const front = new Set();
  const labelled = [...part.querySelectorAll("[data-label]")];
  const labels = new Set(labelled.map((one) => one.dataset.label));
  const look = () => {
    const words = wordsOf(input);
    const wanted = (label) => !words.length || words.some((word) => label.toLowerCase().includes(word));
    for (const one of labelled) {
      const away = !wanted(one.dataset.label);
      if (one instanceof SVGElement) one.style.display = away ? "none" : "";
      else one.hidden = away;
      if (one.matches(".series, li")) one.classList.toggle("dim", front.size > 0 && !front.has(one.dataset.label));
      one.querySelector("button")?.setAttribute("aria-pressed", front.has(one.dataset.label));
    }
    for (const line of part.querySelectorAll(".line-of-panels")) line.hidden = ![...line.querySelectorAll("figure")].some((one) => !one.hidden);
    part.querySelector(".methods .shown").textContent = words.length ? `${[...labels].filter(wanted).length} of ${labels.size}` : "";
  };
  input.addEventListener("input", look);
  for (const key of part.querySelectorAll(".keys li")) {
    key.querySelector("button").addEventListener("click", () => {
      if (!front.delete(key.dataset.label)) front.add(key.dataset.label);
      look();
    });
  }
}

// Pictures: what a tile shows is read out below, and a tile of a heatmap leads to its example.
for (const panels of document.querySelectorAll(".panels")) {
  const reads = panels.closest(".scroll").nextElementSibling;
  panels.addEventListener("pointerover", (event) => {
    const says = event.target.querySelector?.(":scope > title")?.textContent;
    const caption = event.target.closest("figure")?.querySelector("figcaption").firstChild.textContent.trim();
    reads.textContent = says ? `${caption} ${event.target.closest("figure").querySelector("b").textContent}: ${says}` : "";
  });
  panels.addEventListener("click", async (event) => {
    const place = event.target.dataset?.place;
    const list = lists.get(panels.closest(".part").querySelector(".examples"));
    if (place === undefined || !list) return;
    await list.open();
    detail.ask(list, list.rows.find((row) => row.place === Number(place)));
  });
}

// The second fixed column stands beside the first, however wide that is.
function fixColumns() {
  for (const table of document.querySelectorAll(".part:not([hidden]) table")) {
    const first = table.querySelector("thead .key");
    if (first) table.style.setProperty("--first", `${first.offsetWidth}px`);
  }
}
addEventListener("resize", fixColumns);

// The part that the address names, or the first; and the example, if it names one.
async function showPart(moved) {
  const parts = [...document.querySelectorAll(".part")];
  const asked = location.hash;
  const [name, example] = asked.slice(1).split("?example=").map(decodeURIComponent);
  const part = parts.find((one) => one.id === name) ?? parts[0];
  const changed = part.hidden;
  for (const one of parts) one.hidden = one !== part;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${part.id}`) link.ariaCurrent = "page";
    else link.removeAttribute("aria-current");
  }
  jump.value = part.id;
  fixColumns();
  const list = lists.get(part.querySelector(".examples"));
  if (moved && (changed || example === undefined)) {
    scrollTo(0, 0);
    part.querySelector("h1").focus({ preventScroll: true });
  }
  await list?.open();
  if (location.hash !== asked) return; // something else was asked for meanwhile
  const row = example === undefined ? undefined : list?.rows.find((one) => one.id === example);
  if (row) await detail.show(list, list.position(row));
  else detail.dialog.close();
}

jump.addEventListener("input", () => (location.hash = jump.value));
addEventListener("hashchange", () => {
  if (location.hash !== "#main") showPart(true);
});
showPart(false);
