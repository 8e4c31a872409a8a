import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { client, model, simulate } from './stack.js';

const c = client();
const ask = { model, input: 'Hello, gateway!' };
const weather = { type: 'function', name: 'weather', strict: true, parameters: { type: 'object', required: ['city'], properties: { city: { type: 'string', enum: ['Oslo'] } } } };

test('create, retrieve, continue, delete', async () => {
  const got = await c.responses.create({ ...ask, instructions: 'Be short.' });
  assert.equal(got.status, 'completed');
  assert.ok(got.output_text);
  assert.ok(got.usage.output_tokens > 0);
  assert.equal((await c.responses.retrieve(got.id)).output_text, got.output_text);
  await c.responses.create({ ...ask, previous_response_id: got.id });
  await c.responses.delete(got.id);
  await assert.rejects(c.responses.retrieve(got.id), OpenAI.NotFoundError);
});

test('stream', async () => {
  const kinds = [];
  let seen = '';
  let final;
  for await (const e of await c.responses.create({ ...ask, stream: true })) {
    assert.equal(e.sequence_number, kinds.length);
    kinds.push(e.type);
    if (e.type === 'response.output_text.delta') seen += e.delta;
    if (e.type === 'response.completed') final = e.response;
  }
  assert.equal(kinds[0], 'response.created');
  assert.ok(seen);
  assert.equal(final.output[0].content[0].text, seen);
  const helper = await c.responses.stream(ask).finalResponse();
  assert.equal(helper.status, 'completed');
  assert.ok(helper.output_text);
});

test('tool', async () => {
  const got = await c.responses.create({ model, input: 'Call the tool, please.', tools: [weather] });
  assert.deepEqual(JSON.parse(got.output[0].arguments), { city: 'Oslo' });
  const streamed = await c.responses.stream({ model, input: 'Call the tool, please.', tools: [weather] }).finalResponse();
  assert.equal(streamed.output[0].arguments, got.output[0].arguments);
});

test('structured output', async () => {
  const schema = { type: 'object', required: ['n'], additionalProperties: false, properties: { n: { type: 'integer' } } };
  const got = await c.responses.parse({ ...ask, text: { format: { type: 'json_schema', name: 'x', strict: true, schema } } });
  assert.equal(typeof JSON.parse(got.output_text).n, 'number');
});

for (const fault of ['truncate-after=6', 'reset-after=6']) {
  test(`a cut stream is an error: ${fault}`, async () => {
    const kinds = [];
    await assert.rejects(
      async () => {
        for await (const e of await c.responses.create({ ...ask, model: 'faulty', stream: true }, simulate(fault))) kinds.push(e.type);
      },
      (e) => e instanceof OpenAI.APIError && /upstream/.test(e.message),
    );
    assert.equal(kinds.at(-1), 'response.failed');
    await assert.rejects(c.responses.stream({ ...ask, model: 'faulty' }, simulate(fault)).finalResponse(), OpenAI.APIError);
  });
}

test('an error behind a 200', async () => {
  await assert.rejects(c.responses.create({ ...ask, model: 'faulty', stream: true }, simulate('error-event-after=0')), OpenAI.InternalServerError);
  assert.ok((await c.responses.stream({ ...ask, model: 'fail-stream' }).finalResponse()).output_text);
});

test('an upgrade is refused in words', async () => {
  const resp = await fetch(`${c.baseURL}/responses`, { headers: { authorization: `Bearer ${c.apiKey}` } });
  await resp.body?.cancel();
  assert.ok(resp.status >= 400 && resp.status < 500, `status ${resp.status}`);
});
