// What the suites share: the stack that node_test.go has started, and clients of it.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import OpenAI from 'openai';

export const stack = JSON.parse(readFileSync(process.env.PENSTOCK_STACK, 'utf8'));

export const model = 'gpt-4o';
export const user = (content) => [{ role: 'user', content }];
export const hello = { model, messages: user('Hello, gateway!') };

// client does not retry unless a test says so, so that each test sees what the
// gateway itself did.
export function client(options = {}) {
  return new OpenAI({ baseURL: stack.base_url, apiKey: stack.client_key, maxRetries: 0, timeout: 30_000, ...options });
}

// simulate asks the provider for a fault.
export const simulate = (directives) => ({ headers: { 'x-simulate': directives } });

// recorded is the request that arrived at a provider under a name.
export async function recorded(url, name) {
  const resp = await fetch(`${url}/recorded/${name}`);
  if (!resp.ok) throw new Error(`no request ${name} has arrived`);
  const rec = await resp.json();
  return { ...rec, body: Buffer.from(rec.body ?? '', 'base64').toString() };
}

export const record = (name) => ({ headers: { 'x-record': name } });

// raw makes the raw upstream answer with the parts given, one after the other.
export function raw(...parts) {
  return { headers: { 'x-raw-reply': parts.map((p) => gzipSync(p).toString('base64')) } };
}

export function rawJSON(status, body, headers = '') {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return raw(`HTTP/1.1 ${status} X\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n${headers}Connection: close\r\n\r\n${text}`);
}

export const rawStream = (...parts) => raw('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n', ...parts);

export const chunk = (delta, finish = null) =>
  `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
export const done = 'data: [DONE]\n\n';

export async function stats(url) {
  return (await fetch(`${url}/simulator/stats`)).json();
}

// eventually waits until a check holds.
export async function eventually(what, check, within = 3000) {
  for (const end = Date.now() + within; ; await sleep(20)) {
    if (await check()) return;
    if (Date.now() > end) throw new Error(`not within ${within} ms: ${what}`);
  }
}

// text joins the text of a chat stream.
export async function text(stream) {
  let out = '';
  for await (const c of stream) out += c.choices[0]?.delta?.content ?? '';
  return out;
}
