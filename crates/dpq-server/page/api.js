// The requests of the server, which /openapi.json describes.

/**
 * @typedef {{ items: number, dim: number, bits: number[], codewords: number, metric: 'ip' | 'l2',
 *   bytes: number, live: boolean, token: boolean, images: boolean, pictures: boolean, map: boolean,
 *   max_k: number }} Info
 * @typedef {{ id: number, name?: string, labels?: string[], picture?: boolean }} Item
 * @typedef {Item & { score: number }} Hit
 * @typedef {{ bits: number, microseconds: number, hits: Hit[] }} Found
 * @typedef {{ bits: number, distortion: number, equal: number }} Length
 * @typedef {{ features: number[], code: number[], lengths: Length[] }} Coded
 * @typedef {{ method: string, items: (Item & { x: number, y: number })[] }} GalleryMap
 * @typedef {{ features: number[], allow?: number[], deny?: number[] }} SearchQuery
 * @typedef {{ ids: number[], items: number }} Changed
 */

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
  throw new Error(body.error ?? `the server answered with status ${response.status}`);
}

/** @param {unknown} body @param {AbortSignal} [signal] @returns {RequestInit} */
const json = (body, signal) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body),
  signal,
});

/** @returns {Promise<Info>} */
export const info = async () => (await request('/v1/index')).json();

/** @param {number} k @param {number} offset @returns {Promise<Item[]>} */
export const items = async (k, offset) =>
  (await (await request(`/v1/items?k=${k}&offset=${offset}`)).json()).items;

/** @returns {Promise<GalleryMap | null>} null while it is being drawn */
export async function map() {
  const response = await request('/v1/map');
  return response.status === 202 ? null : response.json();
}

/**
 * @param {Blob | { id: number }} query an image or an item
 * @returns {Promise<Coded>}
 */
export async function code(query) {
  const options = query instanceof Blob ? image(query) : json(query);
  return (await request('/v1/code', options)).json();
}

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
export const search = async (query, bits, k, signal, more = '') =>
  (await request(`/v1/search?k=${k}&bits=${bits}${more}`, json(query, signal))).json();

/**
 * Returns the place of an item among all results, null if it is not among the first `k`.
 * @param {SearchQuery} query
 * @param {number} id
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
      const data = JSON.parse(event.slice(event.indexOf('data: ') + 6));
      if (data.error) throw new Error(data.error);
      // The last event says that there is no more.
      if (data.hits) each(data);
    }
  }
}

/** @param {string} token @returns {Record<string, string>} */
const authorized = (token) => (token ? { authorization: `Bearer ${token}` } : {});

/**
 * @param {Blob} file
 * @param {string} name
 * @param {string} token
 * @returns {Promise<Changed>}
 */
export async function addImage(file, name, token) {
  const options = image(file);
  const headers = { ...options.headers, ...authorized(token) };
  return (await request(`/v1/items?name=${encodeURIComponent(name)}`, { ...options, headers })).json();
}

/**
 * @param {{ id: number, name?: string, code: number[] }} item
 * @param {string} token
 * @returns {Promise<Changed>}
 */
export async function addCode(item, token) {
  const options = json({ items: [item] });
  const headers = { ...options.headers, ...authorized(token) };
  return (await request('/v1/items', { ...options, headers })).json();
}

/** @param {number} id @param {string} token @returns {Promise<Changed>} */
export const remove = async (id, token) =>
  (await request(`/v1/items/${id}`, { method: 'DELETE', headers: authorized(token) })).json();
