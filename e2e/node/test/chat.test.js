import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { client, hello, model, record, recorded, stack, text, user } from './stack.js';

const c = client();
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', required: ['city'], properties: { city: { type: 'string', enum: ['Oslo'] } } } },
};

test('chat', async () => {
  const { data, response, request_id } = await c.chat.completions.create(hello).withResponse();
  assert.ok(data.choices[0].message.content);
  assert.equal(data.choices[0].finish_reason, 'stop');
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.match(request_id, /^req_/);
  assert.equal(data._request_id, request_id);
  assert.equal(response.headers.get('x-penstock-upstream'), 'main');
  for (const part of ['queue;dur=', 'upstream;dur=', 'overhead;dur=']) assert.ok(response.headers.get('server-timing').includes(part));
});

test('stream', async () => {
  const whole = await c.chat.completions.create(hello);
  assert.equal(await text(await c.chat.completions.create({ ...hello, stream: true })), whole.choices[0].message.content);
  let usage;
  for await (const chunk of await c.chat.completions.create({ ...hello, stream: true })) usage ??= chunk.usage;
  assert.ok(!usage, 'usage that nobody asked for');
  let last;
  for await (const chunk of await c.chat.completions.create({ ...hello, stream: true, stream_options: { include_usage: true } })) last = chunk;
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 0);
});

test('stream helper', async () => {
  const runner = c.chat.completions.stream(hello);
  let seen = '';
  runner.on('content', (delta) => (seen += delta));
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, seen);
  assert.equal(final.choices[0].finish_reason, 'stop');
});

test('tools', async () => {
  const ask = { model, messages: user('Call the tool, please.'), tools: [weather] };
  const whole = await c.chat.completions.create(ask);
  const call = whole.choices[0].message.tool_calls[0];
  assert.equal(whole.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Oslo' });
  const streamed = await c.chat.completions.stream(ask).finalChatCompletion();
  assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
  const answered = await c.chat.completions.create({
    ...ask,
    messages: [...ask.messages, whole.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'rain' }],
  });
  assert.ok(answered.choices[0].message.content);
});

test('tool runner', async () => {
  let asked;
  const tool = { type: 'function', function: { name: 'weather', parse: JSON.parse, function: (a) => ((asked = a), 'rain'), parameters: weather.function.parameters } };
  const final = await c.chat.completions.runTools({ model, messages: user('Call the tool, please.'), tools: [tool] }).finalContent();
  assert.deepEqual(asked, { city: 'Oslo' });
  assert.ok(final);
});

test('structured output', async () => {
  const person = z.object({ name: z.string(), age: z.number() });
  const got = await c.chat.completions.parse({ ...hello, response_format: zodResponseFormat(person, 'person') });
  assert.equal(typeof got.choices[0].message.parsed.name, 'string');
  assert.equal(typeof got.choices[0].message.parsed.age, 'number');
});

test('vision', async () => {
  const url = `data:image/png;base64,${Buffer.alloc(150_000, 'picture').toString('base64')}`;
  const content = [{ type: 'text', text: 'What is this?' }, { type: 'image_url', image_url: { url, detail: 'low' } }];
  await c.chat.completions.create({ model, messages: user(content) }, record('node-vision'));
  assert.deepEqual(JSON.parse((await recorded(stack.main_url, 'node-vision')).body).messages[0].content, content);
});

test('choices, unknown fields and Unicode', async () => {
  const ask = { ...hello, n: 3, seed: 7, extra: { 'ü': ['😀', 1e21, null] }, logit_bias: { 50256: -100 } };
  const got = await c.chat.completions.create(ask, record('node-unknown'));
  assert.deepEqual(got.choices.map((x) => x.index), [0, 1, 2]);
  assert.equal((await recorded(stack.main_url, 'node-unknown')).body, JSON.stringify(ask));
});

test('many at once', async () => {
  const all = await Promise.all(Array.from({ length: 100 }, (_, i) => (i % 2 ? c.chat.completions.create(hello) : c.chat.completions.stream(hello).finalChatCompletion())));
  assert.ok(all.every((x) => x.choices[0].finish_reason === 'stop'));
});
