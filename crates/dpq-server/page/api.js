// The requests of the server, which /openapi.json describes.

/**
 * @typedef {{ items: number, dim: number, bits: number[], codewords: number, metric: 'ip' | 'l2',
 *   bytes: number, live: boolean, token: boolean, images: boolean, pictures: boolean, map: boolean,
 *   max_k: number, max_body: number }} Info
 * @typedef {{ id: string, name?: string, labels?: string[], picture?: boolean }} Item
 * @typedef {Item & { score: number }} Hit
 * @typedef {{ bits: number, microseconds: number, hits: Hit[] }} Found
 * @typedef {{ bits: number, distortion: number, equal: number }} Length
 * @typedef {{ features: number[], code: number[], lengths: Length[] }} Coded
 * @typedef {{ method: string, items: (Item & { x: number, y: number })[] }} GalleryMap
 * @typedef {{ features: number[], allow?: string[], deny?: string[] }} SearchQuery
 * @typedef {{ ids: string[], items: number }} Changed
 */

/** A request that the server refused. */
class Refused extends Error {
  /** @param {string} sentence @param {number} status */
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/**
 * Reads JSON, with ids as text: numbers of JavaScript are exact only up to 2^53.
 * @param {string} text
 * @param {(key: string) => boolean} isId whether a number with this key is an id
 */
function parse(text, isId = (key) => key === 'id') {
  /** @param {string} key @param {unknown} value @param {{ source: string }} [context] missing in old browsers */
  const exact = (key, value, context) =>
    typeof value === 'number' && isId(key) ? (context?.source ?? String(value)) : value;
  return JSON.parse(text, /** @type {(key: string, value: unknown) => unknown} */ (exact));
}

/** Returns what an id is in JSON. @param {string} id */
function number(id) {
  const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
  return rawJSON ? rawJSON(id) : Number(id);
}

/** Writes ids as numbers. @param {string} key @param {unknown} value */
function written(key, value) {
  if (key === 'id' && typeof value === 'string') return number(value);
  return (key === 'allow' || key === 'deny') && Array.isArray(value) ? value.map(number) : value;
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error instanceof DOMException) throw error;
    throw new Error('the server does not answer, look whether it still runs');
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(body.error ?? `the server answered with status ${response.status}`, response.status);
}

/** @param {string} path @param {RequestInit} [options] */
const read = async (path, options) => parse(await (await request(path, options)).text());

/** @param {unknown} body @param {AbortSignal} [signal] @returns {RequestInit} */
const json = (body, signal) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body, written),
  signal,
});

/** @returns {Promise<Info>} */
export const info = () => read('/v1/index');

/** @param {number} k @param {number} offset @returns {Promise<Item[]>} */
export const items = async (k, offset) =>
  (await read(`/v1/items?k=${k}&offset=${offset}`)).items;

/** @returns {Promise<GalleryMap | null>} null while it is being drawn */
export async function map() {
  const response = await request('/v1/map');
  return response.status === 202 ? null : parse(await response.text());
}

/**
 * @param {Blob | { id: string } | { code: number[] }} query an image, an item or a code
 * @returns {Promise<Coded>}
 */
export const code = (query) => read('/v1/code', query instanceof Blob ? image(query) : json(query));

/** @param {Blob} file @returns {RequestInit} */
const image = (file) => ({
  method: 'POST',
  headers: { 'content-type': file.type.startsWith('image/') ? file.type : 'image/x-unknown' },
  body: file,
});

/**
 * @param {SearchQuery} query
 * @param {number} bits
 * @param {number} k
 * @param {AbortSignal} [signal]
 * @param {string} [more] further parameters
 * @returns {Promise<Found>}
 */
export const search = (query, bits, k, signal, more = '') =>
  read(`/v1/search?k=${k}&bits=${bits}${more}`, json(query, signal));

/**
 * Returns the place of an item among all results, null if it is not among the first `k`.
 * @param {SearchQuery} query
 * @param {string} id
 * @param {number} bits
 * @param {number} k
 * @param {AbortSignal} signal
 */
export async function place(query, id, bits, k, signal) {
  const [alone] = (await search({ ...query, allow: [id] }, bits, 1, signal)).hits;
  if (!alone) return null;
  const better = await search(query, bits, k, signal, `&min_score=${alone.score}`);
  const at = better.hits.findIndex((hit) => hit.id === id);
  return at < 0 ? null : at + 1;
}

/**
 * Searches at every length up to `bits` and calls `each` with an answer as soon as it is there.
 * @param {SearchQuery} query
 * @param {number} bits
 * @param {number} k
 * @param {AbortSignal} signal
 * @param {(found: Found) => void} each
 */
export async function searchAll(query, bits, k, signal, each) {
  const path = `/v1/search?k=${k}&bits=${bits}&progressive=true`;
  const { body } = await request(path, json(query, signal));
  if (!body) return;
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split('\n\n');
    text = events.pop() ?? '';
    for (const event of events) {
      const data = parse(event.slice(event.indexOf('data: ') + 6));
      if (data.error) throw new Error(data.error);
      // The last event says that there is no more.
      if (data.hits) each(data);
    }
  }
}

/**
 * Changes the gallery.
 * @param {string} path
 * @param {RequestInit} options
 * @param {string} token
 * @returns {Promise<Changed>}
 */
async function change(path, options, token) {
  const headers = new Headers(options.headers);
  if (token) headers.set('authorization', `Bearer ${token}`);
  const response = await request(path, { ...options, headers });
  // The numbers of the list are ids.
  return parse(await response.text(), (key) => /^\d+$/.test(key));
}

/**
 * Adds an image, and replaces no item: without its name if another one has that.
 * @param {Blob} file
 * @param {string} name
 * @param {string} token
 * @returns {Promise<{ id: string, name?: string }>}
 */
export async function addImage(file, name, token) {
  try {
    const { ids } = await change(`/v1/items?name=${encodeURIComponent(name)}`, image(file), token);
    return { id: ids[0], name };
  } catch (error) {
    if (!(error instanceof Refused && error.status === 409)) throw error;
    return { id: (await change('/v1/items', image(file), token)).ids[0] };
  }
}

/**
 * @param {{ id: string, name?: string, code: number[] }} item
 * @param {string} token
 */
export const addCode = (item, token) => change('/v1/items', json({ items: [item] }), token);

/** @param {string} id @param {string} token */
export const remove = (id, token) => change(`/v1/items/${id}`, { method: 'DELETE' }, token);
