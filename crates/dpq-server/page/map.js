// The map of the gallery, on a canvas.

import * as api from './api.js';
import { announce, byId, element, whole } from './dom.js';
import { picture, title } from './results.js';

/** @typedef {import('./api.js').Item} Item */
/** @typedef {Item & { x: number, y: number }} Point */

/** Colours that most people can tell apart, on white and on black. */
const COLOURS = ['#4e79a7', '#f28e2b', '#e15759', '#3a9e98', '#59a14f', '#c9a21b', '#b07aa1', '#e8718a', '#9c755f', '#8a8f94'];

/** The distance from a point at which a pointer finds it, in pixels. */
const NEAR = 24;

const PADDING = 14;

export class GalleryMap {
  /** @param {(item: Item) => void} choose */
  constructor(choose) {
    this.choose = choose;
    this.canvas = byId('map', HTMLCanvasElement);
    this.tip = byId('map-tip', HTMLElement);
    /** @type {Point[]} */
    this.points = [];
    /** @type {Map<string, string>} */
    this.colours = new Map();
    /** @type {Set<string>} */
    this.marked = new Set();
    /** @type {Point | null} */
    this.current = null;
    /** The smallest coordinates of points, and their ranges. */
    this.bounds = { left: 0, top: 0, width: 1, height: 1 };
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
    this.canvas.addEventListener('pointermove', (event) => this.#point(this.#nearest(event.offsetX, event.offsetY, NEAR)));
    this.canvas.addEventListener('pointerleave', () => this.#point(null));
    this.canvas.addEventListener('blur', () => this.#point(null));
    this.canvas.addEventListener('click', (event) => {
      const found = this.#nearest(event.offsetX, event.offsetY, Infinity);
      if (found) this.choose(found);
    });
    this.canvas.addEventListener('keydown', (event) => this.#key(event));
  }

  /** Asks for the map until it is drawn. */
  async load() {
    byId('map-section', HTMLElement).hidden = false;
    let map = await api.map();
    for (let wait = 250; !map; wait = Math.min(2000, 2 * wait)) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      map = await api.map();
    }
    this.points = map.items;
    const [xs, ys] = [this.points.map(({ x }) => x), this.points.map(({ y }) => y)];
    // The 0 is for a gallery without items.
    const [left, top] = [xs, ys].map((all) => (all.length ? Math.min(...all) : 0));
    this.bounds = { left, top, width: Math.max(left, ...xs) - left || 1, height: Math.max(top, ...ys) - top || 1 };
    const labels = [...new Set(map.items.map((item) => item.labels?.[0]).filter((label) => label !== undefined))].sort();
    this.colours = new Map(labels.map((label, i) => [label, COLOURS[i % COLOURS.length]]));
    byId('map-note', HTMLElement).textContent =
      `${whole(map.items.length)} items at equal distances in the gallery, by ${map.method} of what their codes stand for.`;
    if (labels.length <= COLOURS.length) {
      const dot = (/** @type {string} */ colour) => {
        const made = element('span', 'dot');
        made.style.background = colour;
        return made;
      };
      byId('legend', HTMLElement).replaceChildren(
        ...[...this.colours].map(([label, colour]) => element('li', '', dot(colour), label)),
      );
    }
    this.draw();
  }

  /** Draws rings around items. @param {string[]} ids */
  mark(ids) {
    this.marked = new Set(ids);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const [width, height, scale] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
    if (!width || !height) return;
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const context = canvas.getContext('2d');
    if (!context || !this.points.length) return;
    context.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const [plain, ink] = ['--dot', '--ink'].map((name) => style.getPropertyValue(name));
    const radius = Math.max(1.8, Math.min(3.4, width / 260));
    context.globalAlpha = 0.8;
    for (const point of this.points) {
      context.fillStyle = this.colours.get(point.labels?.[0] ?? '') ?? plain;
      this.#circle(context, point, radius);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    for (const point of this.points.filter((point) => this.marked.has(point.id))) {
      this.#circle(context, point, radius + 3);
      context.stroke();
    }
    if (this.current) {
      context.lineWidth = 3;
      this.#circle(context, this.current, radius + 4);
      context.stroke();
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {Point} point @param {number} radius */
  #circle(context, point, radius) {
    const [x, y] = this.#place(point);
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }

  /** Returns where a point is, in pixels. @param {Point} point */
  #place(point) {
    const { left, top, width, height } = this.bounds;
    const across = this.canvas.clientWidth - 2 * PADDING;
    const down = this.canvas.clientHeight - 2 * PADDING;
    return [PADDING + ((point.x - left) / width) * across, PADDING + ((point.y - top) / height) * down];
  }

  /** @param {number} x @param {number} y @param {number} within */
  #nearest(x, y, within) {
    /** @type {Point | null} */
    let best = null;
    for (const point of this.points) {
      const [px, py] = this.#place(point);
      const distance = Math.hypot(px - x, py - y);
      if (distance < within) [best, within] = [point, distance];
    }
    return best;
  }

  /** Shows which item the pointer or the keyboard is at. @param {Point | null} point */
  #point(point) {
    if (point === this.current) return;
    this.current = point;
    this.canvas.classList.toggle('found', point !== null);
    this.tip.hidden = !point;
    if (point) {
      const [x, y] = this.#place(point);
      this.tip.replaceChildren(picture(point), element('span', '', title(point)));
      this.tip.style.left = `${Math.min(Math.max(x, 60), this.canvas.clientWidth - 60)}px`;
      this.tip.style.top = `${y}px`;
      this.tip.classList.toggle('below', y < 130);
    }
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    /** @type {Record<string, [number, number]>} */
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const direction = directions[event.key];
    if (event.key === 'Enter' && this.current) this.choose(this.current);
    if (!direction || !this.points.length) return;
    event.preventDefault();
    const next = this.current ? this.#towards(this.current, direction) : this.points[0];
    if (!next) return;
    this.#point(next);
    announce(`${title(next)}, item ${next.id}`);
  }

  /**
   * Returns the nearest point in a direction; distance across it counts twice.
   * @param {Point} from
   * @param {[number, number]} direction
   */
  #towards(from, [dx, dy]) {
    const [x, y] = this.#place(from);
    /** @type {Point | null} */
    let best = null;
    let least = Infinity;
    for (const point of this.points) {
      const [px, py] = this.#place(point);
      const along = (px - x) * dx + (py - y) * dy;
      const cost = along + 2 * Math.abs((px - x) * dy - (py - y) * dx);
      if (along > 3 && cost < least) [best, least] = [point, cost];
    }
    return best;
  }
}
