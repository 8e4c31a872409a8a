import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HumanMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { z } from 'zod';
import { simulate, stack, stats } from './stack.js';

function chat({ model = 'gpt-4o', apiKey = stack.client_key, headers, ...more } = {}) {
  return new ChatOpenAI({ model, apiKey, maxRetries: 0, configuration: { baseURL: stack.base_url, defaultHeaders: headers }, ...more });
}
const weather = tool(async () => 'rain', { name: 'weather', description: 'the weather', schema: z.object({ city: z.enum(['Oslo']) }) });

for (const useResponsesApi of [false, true]) {
  const api = useResponsesApi ? 'responses' : 'chat';

  test(`${api}: invoke`, async () => {
    const got = await chat({ useResponsesApi }).invoke([new HumanMessage('Hello, gateway!')]);
    assert.ok(got.text);
    assert.ok(got.usage_metadata.output_tokens > 0);
  });

  test(`${api}: stream`, async () => {
    let seen;
    for await (const part of await chat({ useResponsesApi }).stream('Hello, gateway!')) seen = seen ? seen.concat(part) : part;
    assert.ok(seen.text);
    assert.ok(seen.usage_metadata.output_tokens > 0);
  });

  test(`${api}: tool`, async () => {
    const bound = chat({ useResponsesApi }).bindTools([weather]);
    assert.deepEqual((await bound.invoke('Call the tool, please.')).tool_calls[0].args, { city: 'Oslo' });
    let seen;
    for await (const part of await bound.stream('Call the tool, please.')) seen = seen ? seen.concat(part) : part;
    assert.deepEqual(seen.tool_calls[0].args, { city: 'Oslo' });
  });

  test(`${api}: structured output`, async () => {
    const got = await chat({ useResponsesApi }).withStructuredOutput(z.object({ name: z.string() }), { name: 'person', method: 'jsonSchema' }).invoke('Who?');
    assert.equal(typeof got.name, 'string');
  });

  test(`${api}: errors`, async () => {
    await assert.rejects(chat({ useResponsesApi, model: 'nobody-has-this' }).invoke('x'), (e) => e.status === 404 && e.code === 'model_not_found');
    await assert.rejects(chat({ useResponsesApi, apiKey: 'sk-unknown' }).invoke('x'), (e) => e.status === 401);
    await assert.rejects(async () => {
      for await (const _ of await chat({ useResponsesApi, model: 'faulty-8', ...simulate('truncate-after=6') }).stream('x'));
    }, /upstream/);
  });
}

// It repeats a 429 only if it is told for how long to wait, at most a minute.
test('429', async () => {
  const apiKey = `${stack.limited_key}-3`;
  await chat({ apiKey }).invoke('x');
  await assert.rejects(chat({ apiKey }).invoke('x'), (e) => e.status === 429 && e.code === 'rate_limit_exceeded');
  const begin = Date.now();
  assert.ok((await chat({ apiKey, maxRetries: 3 }).invoke('x')).text);
  assert.ok(Date.now() - begin < 10_000);
});

test('many at once through a limit of the team', async () => {
  const apiKey = `${stack.limited_key}-4`;
  const all = await Promise.all([1, 2].map(() => chat({ apiKey, maxRetries: 6 }).invoke('x')));
  assert.ok(all.every((m) => m.text));
});

test('a lack of money is not repeated', async () => {
  const count = async () => Object.values((await stats(stack.own_url)).requests['chat/completions'] ?? {}).reduce((a, b) => a + b, 0);
  const before = await count();
  const model = new ChatOpenAI({ model: 'any', apiKey: stack.client_key, configuration: { baseURL: stack.sidecar, defaultHeaders: simulate('insufficient-quota').headers } });
  await assert.rejects(model.invoke('x'), (e) => e.status === 429);
  assert.equal((await count()) - before, 1);
});

test('embeddings', async () => {
  const model = new OpenAIEmbeddings({ model: 'text-embedding-3-small', apiKey: stack.client_key, maxRetries: 0, configuration: { baseURL: stack.base_url } });
  assert.equal((await model.embedDocuments(['one', 'two']))[1].length, 1536);
});
