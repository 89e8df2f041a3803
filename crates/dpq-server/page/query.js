// The query: an image of the user's or an item of the gallery, and whether the gallery has it.

import * as api from './api.js';
import { announce, byId, clearError, element, showError } from './dom.js';
import { added, picture, title } from './results.js';

/** @typedef {import('./api.js').Item} Item */
/** @typedef {import('./api.js').Coded} Coded */
/** @typedef {import('./api.js').Info} Info */

/**
 * @typedef {{ title: string, note: string, labels: string[], coded: Coded, item: Item | null,
 *   file: File | null, inGallery: boolean }} Query
 * An image has no item until it is added.
 */

/** The largest side of an image that is sent; a network sees fewer pixels. */
const SIDE = 1024;

export class QueryPanel {
  /**
   * @param {Info} info
   * @param {(query: Query) => void} search called with a new query
   * @param {(query: Query) => void} changed called after the gallery has changed
   */
  constructor(info, search, changed) {
    this.info = info;
    this.search = search;
    this.changed = changed;
    /** @type {Query | null} */
    this.query = null;
    this.latest = 0;
    this.button = byId('change', HTMLButtonElement);
    this.button.addEventListener('click', () => this.#change().catch(showError));
    byId('token-field', HTMLElement).hidden = !(info.live && info.token);
    if (info.images) this.#takeFiles();
    else {
      byId('choose', HTMLElement).hidden = true;
      byId('drop-hint', HTMLElement).textContent =
        'Click an item to search with it. A server that was started with --model takes images too.';
    }
  }

  #takeFiles() {
    const input = byId('file', HTMLInputElement);
    const take = (/** @type {File | null | undefined} */ file) => {
      if (file) this.image(file).catch(showError);
    };
    input.addEventListener('change', () => {
      take(input.files?.[0]);
      // The same file may be chosen again.
      input.value = '';
    });
    document.addEventListener('paste', (event) => take(event.clipboardData?.files[0]));
    document.addEventListener('dragover', (event) => {
      event.preventDefault();
      document.body.classList.add('dragging');
    });
    document.addEventListener('dragleave', (event) => {
      if (!event.relatedTarget) document.body.classList.remove('dragging');
    });
    document.addEventListener('drop', (event) => {
      event.preventDefault();
      document.body.classList.remove('dragging');
      take(event.dataTransfer?.files[0]);
    });
  }

  /** Searches with an image. @param {File} file */
  async image(file) {
    clearError();
    const turn = ++this.latest;
    const small = await smaller(file);
    const coded = await api.code(small);
    if (turn !== this.latest) return;
    const note = 'Your image';
    this.#set({ title: file.name || 'Image', note, labels: [], coded, item: null, file: small, inGallery: false });
    this.#show(preview(small));
  }

  /** Searches with an item. @param {Item} item */
  async item(item) {
    clearError();
    const turn = ++this.latest;
    const coded = await api.code({ id: item.id });
    if (turn !== this.latest) return;
    const note = item.name ? `Item ${item.id}, ${item.name}` : `Item ${item.id}`;
    const labels = item.labels ?? [];
    this.#set({ title: title(item), note, labels, coded, item, file: null, inGallery: true });
    this.#show(picture(item));
  }

  /** @param {Query} query */
  #set(query) {
    this.query = query;
    this.search(query);
  }

  /** @param {HTMLElement} [shown] a new picture */
  #show(shown) {
    const query = this.query;
    if (!query) return;
    if (shown) byId('query-picture', HTMLElement).replaceChildren(shown);
    byId('query-name', HTMLElement).textContent = query.title;
    byId('query-note', HTMLElement).textContent = query.note;
    this.button.hidden = !this.info.live;
    this.button.textContent = query.inGallery ? 'Delete item' : query.item ? 'Put back' : 'Add to gallery';
  }

  /** Adds the query to the gallery or deletes it from there. */
  async #change() {
    const query = this.query;
    if (!query) return;
    clearError();
    const token = byId('token', HTMLInputElement).value;
    this.button.disabled = true;
    try {
      if (query.inGallery && query.item) {
        await api.remove(query.item.id, token);
        query.inGallery = false;
        query.note = 'Deleted';
      } else if (query.item) {
        const { id, name } = query.item;
        await api.addCode({ id, name, code: query.coded.code }, token);
        query.inGallery = true;
        query.note = `Item ${id}, put back`;
      } else if (query.file) {
        const { ids } = await api.addImage(query.file, query.title, token);
        query.item = { id: ids[0], name: query.title };
        query.inGallery = true;
        query.note = `Item ${ids[0]}, added`;
        added.set(ids[0], URL.createObjectURL(query.file));
      }
    } finally {
      this.button.disabled = false;
    }
    announce(query.note);
    if (query !== this.query) return;
    this.#show();
    this.changed(query);
  }
}

/** @param {Blob} file */
function preview(file) {
  const image = element('img');
  image.alt = 'Your image';
  image.addEventListener('load', () => image.classList.toggle('tiny', image.naturalWidth <= 64));
  image.src = URL.createObjectURL(file);
  return image;
}

/**
 * Returns a photograph with at most SIDE pixels per side, so that little is sent. The server reads
 * all other files itself.
 * @param {File} file
 */
async function smaller(file) {
  if (!['image/jpeg', 'image/png', 'image/webp'].includes(file.type)) return file;
  const bitmap = await createImageBitmap(file).catch(() => null);
  const side = bitmap ? Math.max(bitmap.width, bitmap.height) : 0;
  if (!bitmap || side <= SIDE) return file;
  const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round((n * SIDE) / side)));
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  canvas.getContext('2d')?.drawImage(bitmap, 0, 0, width, height);
  /** @type {Blob | null} */
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.92));
  return blob ? new File([blob], file.name, { type: 'image/jpeg' }) : file;
}
