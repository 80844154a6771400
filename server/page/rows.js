// The map of a bank: one square for each row of the cache, which is one token's, coloured by who holds it. Of a large
// bank, one for several rows.

import { count, el, many } from "./dom.js";
import { isOwn, ownQuestion } from "./own.js";

const NUM_COLOURS = 12;
const MOST_SQUARES = 4096; // of a map: more take long to draw, and are too small to point at
const HEIGHTS = [
  [1, 300],
  [2, 220],
  [4, 150],
  [Infinity, 110],
]; // px for a map, by how many there are

/** Colours of the page as it looks now. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    free: value("--row-free"),
    idle: value("--row-idle"),
    shared: value("--row-shared"),
    notch: value("--row-notch"),
    own: Array.from({ length: NUM_COLOURS }, (_, i) => value(`--own-${i}`)),
  };
}

const slots = new Map(); // number of an answer -> its colour
let next = 0;

/** Gives each of these answers a colour of its own, as far as they reach; one keeps its colour until it ends. */
export function assignColours(numbers) {
  for (const number of slots.keys()) if (!numbers.includes(number)) slots.delete(number);
  const taken = new Set(slots.values());
  for (const number of numbers) {
    if (slots.has(number)) continue;
    for (let i = 0; i < NUM_COLOURS && taken.has(next); i++) next = (next + 1) % NUM_COLOURS;
    slots.set(number, next);
    taken.add(next);
    next = (next + 1) % NUM_COLOURS;
  }
}

/** The class that gives an element an answer's colour. */
export const colourClass = (number) => `own-${slots.get(number) ?? 0}`;

const rowsPerSquare = (rows) => Math.ceil(rows / MOST_SQUARES);

const sentence = ({ rows, free, idle, shared }) => {
  const per = rowsPerSquare(rows);
  const all = many(rows, per > 1 ? "token" : "square");
  const text =
    free === rows
      ? `all ${all} free`
      : `${count(rows - free - idle)} of ${all} in use (${count(shared)} shared), ` +
        `${count(idle)} cached, ${count(free)} free`;
  return per > 1 ? `${text}; each square is ${per} tokens` : text;
};

class RowMap {
  constructor(name) {
    this.canvas = el("canvas", { role: "img" });
    this.caption = el("figcaption");
    this.name = name;
    this.node = el("figure", {}, this.canvas, this.caption);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.tell(""));
  }

  /** `bank` as /live describes it. */
  show(bank, height) {
    const text = this.name + sentence(bank);
    if (this.caption.textContent !== text) this.caption.textContent = text;
    this.canvas.setAttribute("aria-label", `Map of the memory. ${text}.`);
    this.bank = bank;
    this.height = height;
    this.draw();
  }

  draw() {
    const { bank, canvas } = this;
    const width = this.node.clientWidth;
    if (!width || !bank) return; // not on show
    const holders = holdersOf(bank);
    const cell = cellSize(holders.length, width, this.height);
    const across = Math.floor((width + 1) / cell);
    const scale = devicePixelRatio || 1;
    const height = Math.ceil(holders.length / across) * cell;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    this.across = across;
    this.cell = cell;
    this.holders = holders;
    paint(pen, holders, across, cell, colours());
  }

  point(event) {
    if (!this.cell) return;
    const square = Math.floor(event.offsetY / this.cell) * this.across + Math.floor(event.offsetX / this.cell);
    const holder = this.holders[square];
    this.tell(holder === undefined ? "" : `${this.name}square ${count(square)}: ${describe(holder)}`);
  }

  tell(text) {
    document.getElementById("pointed").textContent = text;
  }
}

/** Pixels of a cell with its gap: as large as fits. */
function cellSize(squares, width, height) {
  for (let cell = 11; cell > 3; cell--) {
    if (Math.ceil(squares / Math.floor(width / cell)) * cell <= height) return cell;
  }
  return 3;
}

/** Who holds each square: of several rows, the one in the middle. */
function holdersOf({ rows, runs }) {
  const per = rowsPerSquare(rows);
  const holders = [];
  let i = 0;
  let end = runs[1];
  for (let first = 0; first < rows; first += per) {
    const row = Math.min(first + Math.floor(per / 2), rows - 1);
    while (row >= end) {
      i += 2;
      end += runs[i + 1];
    }
    holders.push(runs[i]);
  }
  return holders;
}

function paint(pen, holders, across, cell, colour) {
  const side = cell - 1;
  const dot = Math.max(1, Math.floor(side / 3));
  const inset = Math.floor((side - dot) / 2);
  holders.forEach((holder, square) => {
    const x = (square % across) * cell;
    const y = Math.floor(square / across) * cell;
    pen.fillStyle =
      holder === 0
        ? colour.free
        : holder === -1
          ? colour.idle
          : holder < 0
            ? colour.shared
            : colour.own[slots.get(holder) ?? 0];
    pen.fillRect(x, y, side, side);
    if (holder < -1) {
      // not by colour alone: shared rows have a hole
      pen.fillStyle = colour.notch;
      pen.fillRect(x + inset, y + inset, dot, dot);
    }
  });
}

function describe(holder) {
  if (holder === 0) return "free";
  if (holder === -1) return "cached, not in use";
  if (holder < 0) return `shared by ${-holder} answers`;
  return isOwn(holder) ? `your answer, to “${ownQuestion()}”` : `answer ${holder}`;
}

const maps = [];

/** What stands before each bank's sentence: nothing where there is one; with several cards whose it is. */
function names(banks, cards) {
  if (!cards.length) return banks.map((_, i) => (banks.length > 1 ? `Part ${i + 1}: ` : ""));
  return cards.flatMap(({ name, num_banks: parts }) =>
    Array.from({ length: parts }, (_, i) => `Card ${name}${parts > 1 ? `, part ${i + 1}` : ""}: `),
  );
}

/** Shows all banks; those without a row in use, but for the first, in words alone. */
export function showBanks(banks, cards) {
  const box = document.getElementById("banks");
  const named = names(banks, cards);
  if (maps.length !== banks.length || maps.some((map, i) => map.name !== named[i])) {
    maps.splice(0, maps.length, ...named.map((name) => new RowMap(name)));
    box.replaceChildren(...maps.map((map) => map.node));
  }
  const used = banks.map((bank, i) => i === 0 || bank.free < bank.rows);
  const shown = used.filter(Boolean).length;
  const height = HEIGHTS.find(([most]) => shown <= most)[1];
  maps.forEach((map, i) => {
    map.node.hidden = !used[i];
    map.show(banks[i], height);
  });
  const rest = banks.length - shown;
  document.getElementById("banks-free").textContent = rest ? `${many(rest, "more part")}, all free` : "";
}
