// The AI SDK, which checks what it reads more strictly than OpenAI's own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { APICallError, RetryError, embedMany, generateImage, generateText, Output, streamText, tool } from 'ai';
import { z } from 'zod';
import { chunk, done, rawStream, simulate, stack } from './stack.js';

const provider = (apiKey = stack.client_key) => createOpenAI({ baseURL: stack.base_url, apiKey });
const openai = provider();
const prompt = 'Hello, gateway!';
const weather = tool({ description: 'the weather', inputSchema: z.object({ city: z.enum(['Oslo']) }), execute: async () => 'rain' });

for (const [api, of] of [['chat', (id) => openai.chat(id)], ['responses', (id) => openai.responses(id)]]) {
  test(`${api}: text`, async () => {
    const got = await generateText({ model: of('gpt-4o'), prompt, maxRetries: 0 });
    assert.ok(got.text);
    assert.equal(got.finishReason, 'stop');
    assert.ok(got.usage.outputTokens > 0);
    assert.match(got.response.headers['x-request-id'], /^req_/);
  });

  test(`${api}: stream`, async () => {
    const got = streamText({ model: of('gpt-4o'), prompt, maxRetries: 0 });
    let seen = '';
    for await (const part of got.textStream) seen += part;
    assert.ok(seen);
    assert.equal(await got.finishReason, 'stop');
    assert.ok((await got.usage).outputTokens > 0);
  });

  test(`${api}: tool`, async () => {
    const ask = { model: of('gpt-4o'), prompt: 'Call the tool, please.', tools: { weather }, maxRetries: 0 };
    const got = await generateText(ask);
    assert.deepEqual(got.toolCalls[0].input, { city: 'Oslo' });
    assert.equal(got.toolResults[0].output, 'rain');
    const streamed = streamText(ask);
    const calls = [];
    for await (const part of streamed.fullStream) {
      assert.notEqual(part.type, 'error', String(part.error));
      if (part.type === 'tool-call') calls.push(part.input);
    }
    assert.deepEqual(calls, [{ city: 'Oslo' }]);
  });

  test(`${api}: object`, async () => {
    const got = await generateText({ model: of('gpt-4o'), prompt, output: Output.object({ schema: z.object({ name: z.string() }) }), maxRetries: 0 });
    assert.equal(typeof got.output.name, 'string');
  });

  test(`${api}: errors`, async () => {
    for (const [model, options, status, retryable] of [
      ['nobody-has-this', {}, 404, false],
      ['faulty-6', simulate('status=400'), 400, false],
      ['faulty-6', simulate('status=500'), 500, true],
      ['wrong-key', {}, 502, true],
    ]) {
      await assert.rejects(generateText({ model: of(model), prompt, maxRetries: 0, ...options }), (e) => {
        assert.ok(APICallError.isInstance(e), `${e.constructor.name}: ${e.message}`);
        assert.equal(e.statusCode, status);
        assert.equal(e.isRetryable, retryable);
        assert.ok(e.data.error.message, 'the body is not the one it expects');
        assert.equal(e.message, e.data.error.message);
        return true;
      });
    }
  });

  test(`${api}: a broken stream is an error`, async () => {
    for (const fault of ['truncate-after=6', 'reset-after=6']) {
      const got = streamText({ model: of('faulty-6'), prompt, maxRetries: 0, ...simulate(fault), onError: () => {} });
      const errors = [];
      try {
        for await (const part of got.fullStream) if (part.type === 'error') errors.push(JSON.stringify(part.error));
      } catch (e) {
        assert.ok(APICallError.isInstance(e)); // the connection that breaks off behind the error
      }
      assert.match(errors.join(), /upstream/, fault);
    }
  });

  test(`${api}: 429`, async () => {
    const key = `${stack.limited_key}-${api === 'chat' ? 1 : 2}`;
    const limited = (id) => (api === 'chat' ? provider(key).chat(id) : provider(key).responses(id));
    await generateText({ model: limited('gpt-4o'), prompt, maxRetries: 0 });
    await assert.rejects(generateText({ model: limited('gpt-4o'), prompt, maxRetries: 0 }), (e) => {
      assert.ok(APICallError.isInstance(e));
      assert.equal(e.statusCode, 429);
      assert.equal(e.data.error.code, 'rate_limit_exceeded');
      return e.isRetryable;
    });
    const begin = Date.now();
    assert.ok((await generateText({ model: limited('gpt-4o'), prompt })).text); // waits as long as it is told
    assert.ok(Date.now() - begin < 8000);
  });
}

test('its own retries end in an error that says so', async () => {
  await assert.rejects(generateText({ model: openai.chat('faulty-6'), prompt, maxRetries: 1, ...simulate('status=500') }), (e) => RetryError.isInstance(e) && APICallError.isInstance(e.lastError));
});

test('events that it would refuse do not reach it', async () => {
  const parts = [
    chunk({ role: 'assistant', content: '' }),
    'event: ping\ndata: {"type":"ping"}\n\n',
    'data:\n\n',
    chunk({ content: 'hi' }).replace('"id"', '"error":null,"id"'),
    chunk({}, 'stop') + done,
  ];
  const got = streamText({ model: openai.chat('raw'), prompt, maxRetries: 0, ...rawStream(...parts), onError: ({ error }) => assert.fail(error) });
  assert.equal(await got.text, 'hi');
  assert.equal(await got.finishReason, 'stop');
});

test('failover is not seen', async () => {
  for (const id of ['fail-status', 'fail-stream']) {
    for (const model of [openai.chat(id), openai.responses(id)]) assert.ok((await generateText({ model, prompt, maxRetries: 0 })).text);
  }
});

test('abort', async () => {
  const stop = new AbortController();
  const got = streamText({ model: openai.chat('faulty-7'), prompt, abortSignal: stop.signal, maxRetries: 0, ...simulate('tokens=1000,token-time=20ms') });
  let n = 0;
  for await (const part of got.fullStream) {
    if (part.type === 'text-delta' && ++n === 3) stop.abort();
  }
  assert.ok(n < 20);
});

test('embeddings and images', async () => {
  const got = await embedMany({ model: openai.embedding('text-embedding-3-small'), values: ['one', 'two'], maxRetries: 0 });
  assert.equal(got.embeddings.length, 2);
  assert.equal(got.embeddings[1].length, 1536);
  const picture = await generateImage({ model: openai.image('gpt-image-1'), prompt: 'a dam', maxRetries: 0 });
  assert.ok(picture.image.base64);
});
