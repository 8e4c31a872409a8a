import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { chunk, client, done, eventually, hello, rawStream, simulate, stack, stats, text } from './stack.js';

const c = client();
const ask = (model) => ({ ...hello, model, stream: true });
const role = chunk({ role: 'assistant', content: '' });
const hi = chunk({ content: 'hi' });
const stop = chunk({}, 'stop');
const whole = role + hi + stop + done;

for (const fault of ['truncate-after=4', 'reset-after=4', 'error-event-after=4', 'truncate-after=4,split=7']) {
  test(`broken: ${fault}`, async () => {
    let seen = 0;
    await assert.rejects(
      async () => {
        for await (const _ of await c.chat.completions.create(ask('faulty'), simulate(fault))) seen++;
      },
      (e) => e instanceof OpenAI.APIError && e.error.message.length > 0,
    );
    assert.equal(seen, 4);
  });
}

test('broken: silence', async () => {
  await assert.rejects(async () => text(await c.chat.completions.create(ask('hanging'), simulate('stall-after=4'))), (e) => e instanceof OpenAI.APIError && e.code === 'idle_timeout');
});

test('broken: reset within an event', async () => {
  let seen = '';
  await assert.rejects(
    async () => {
      for await (const x of await c.chat.completions.create(ask('raw'), rawStream(role + hi, hi.slice(0, 40)))) seen += x.choices[0].delta.content;
    },
    OpenAI.APIError,
  );
  assert.equal(seen, 'hi');
});

const odd = {
  CRLF: [whole.replaceAll('\n', '\r\n')],
  'bare CR': [whole.replaceAll('\n', '\r')],
  'byte order mark': ['\ufeff' + whole],
  'null error': [role + hi.replace('"id"', '"error":null,"id"') + stop + done],
  'ids and retries': ['retry: 1\n\nid: 1\n' + role, 'id: 2\n' + hi, stop + done],
  'empty data': [role + 'data:\n\n', hi + 'data: \n\n' + stop + done],
  pings: [role + 'event: ping\n\n', hi + 'event: ping\ndata: {"type":"ping"}\n\n' + stop + done],
  comments: [': keep-alive\n\n', ': OPENROUTER PROCESSING\n\n', whole],
  'no last blank line': [role + hi + stop + 'data: [DONE]'],
  'no [DONE]': [role + hi + stop],
  "Azure's first chunk": ['data: {"choices":[],"id":"","prompt_filter_results":[{"prompt_index":0}]}\n\n', whole],
  'cut in characters': [role, chunk({ content: 'hi' }).slice(0, 90), chunk({ content: 'hi' }).slice(90) + stop + done],
};
for (const [name, parts] of Object.entries(odd)) {
  test(`readable: ${name}`, async () => {
    assert.equal(await text(await c.chat.completions.create(ask('raw'), rawStream(...parts))), 'hi');
  });
}

test('failover is not seen', async () => {
  for (const model of ['fail-status', 'fail-stream']) assert.ok(await text(await c.chat.completions.create(ask(model))));
  assert.ok(await text(await c.chat.completions.create(ask('raw-first'), rawStream('data: {"error":"no"}\n\n'))));
});

test('abort', async () => {
  const stream = await c.chat.completions.create(ask('faulty-4'), simulate('tokens=1000,token-time=20ms'));
  let n = 0;
  for await (const _ of stream) if (++n === 3) stream.controller.abort();
  assert.ok(n < 20);
  await eventually('the provider is told', async () => (await stats(stack.faulty_url)).in_flight === 0);
});

test('leaving the loop', async () => {
  for await (const _ of await c.chat.completions.create(ask('faulty-4'), simulate('tokens=1000,token-time=20ms'))) break;
  await eventually('the provider is told', async () => (await stats(stack.faulty_url)).in_flight === 0);
});

test('the client gives up waiting', async () => {
  await assert.rejects(c.chat.completions.create({ ...hello, model: 'faulty-5' }, { ...simulate('ttft=20s'), timeout: 300 }), OpenAI.APIConnectionTimeoutError);
  await eventually('the provider is told', async () => (await stats(stack.faulty_url)).in_flight === 0);
});
