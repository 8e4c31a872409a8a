import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { AzureOpenAI } from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { WebSocket } from 'ws';
import { client, recorded, stack } from './stack.js';

const options = (name) => ({ rejectUnauthorized: false, headers: { 'x-record': name } });

// talk asks for an answer and joins its text.
async function talk(rt) {
  let text = '';
  await new Promise((resolve, reject) => {
    rt.on('error', reject);
    rt.on('session.created', () => rt.send({ type: 'response.create' }));
    rt.on('response.output_text.delta', (e) => { text += e.delta; });
    rt.on('response.done', resolve);
  });
  rt.close();
  await once(rt.socket, 'close');
  return text;
}

test('realtime', { timeout: 20_000 }, async () => {
  const rt = new OpenAIRealtimeWS({ model: 'alias', options: options('node-realtime') }, client({ baseURL: stack.tls_url }));
  assert.equal(await talk(rt), 'the river');
  const got = await recorded(stack.main_url, 'node-realtime');
  assert.equal(`${got.path}?${got.query}`, '/v1/realtime?model=gpt-4o-mini-2024');
  assert.deepEqual(got.header.Authorization, [`Bearer ${stack.upstream_key}`]);
});

test("realtime by Azure's client", { timeout: 20_000 }, async () => {
  const azure = new AzureOpenAI({ endpoint: stack.tls_url.replace(/\/v1$/, ''), apiKey: stack.client_key, apiVersion: '2024-10-21', deployment: 'alias' });
  assert.equal(await talk(await OpenAIRealtimeWS.azure(azure, { options: options('node-azure-realtime') })), 'the river');
  const got = await recorded(stack.main_url, 'node-azure-realtime');
  assert.equal(got.path, '/v1/realtime');
  assert.match(got.query, /(^|&)model=gpt-4o-mini-2024(&|$)/);
  assert.equal(got.header['Api-Key'], undefined);
});

test('responses', { timeout: 20_000 }, async () => {
  const ws = new ResponsesWS(client());
  let text = '';
  await new Promise((resolve, reject) => {
    ws.on('error', reject);
    ws.on('response.output_text.delta', (e) => { text += e.delta; });
    ws.on('response.completed', resolve);
    ws.send({ type: 'response.create', model: 'gpt-4o', input: 'Hello' });
  });
  ws.close();
  assert.equal(text, 'the river');
});

test('a key that is unknown', { timeout: 20_000 }, async () => {
  const ws = new WebSocket(`${stack.base_url.replace('http', 'ws')}/realtime?model=gpt-4o`, { headers: { Authorization: 'Bearer sk-unknown' } });
  const [error] = await once(ws, 'error');
  assert.match(error.message, /401/);
});
