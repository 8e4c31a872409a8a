// The SDK of two years ago and the newest read answers, streams and errors alike.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hello, model, simulate, stack, text, user } from './stack.js';

for (const name of ['openai-old', 'openai-new']) {
  const { default: OpenAI, toFile } = await import(name);
  const client = (options = {}) => new OpenAI({ baseURL: stack.base_url, apiKey: stack.client_key, maxRetries: 0, timeout: 30_000, ...options });
  const c = client();

  test(`${name}: chat`, async () => {
    const { data, response } = await c.chat.completions.create(hello).withResponse();
    assert.ok(data.choices[0].message.content && data._request_id);
    assert.equal(response.headers.get('x-penstock-upstream'), 'main');
    assert.equal(await text(await c.chat.completions.create({ ...hello, stream: true })), data.choices[0].message.content);
  });

  test(`${name}: tools`, async () => {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', required: ['city'], properties: { city: { type: 'string', enum: ['Oslo'] } } } } }];
    let args = '';
    for await (const chunk of await c.chat.completions.create({ model, messages: user('Call the tool, please.'), tools, stream: true })) {
      args += chunk.choices[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? '';
    }
    assert.equal(JSON.parse(args).city, 'Oslo');
  });

  test(`${name}: responses, embeddings, forms`, async () => {
    const kinds = [];
    for await (const e of await c.responses.create({ model, input: 'Hello', stream: true })) kinds.push(e.type);
    assert.equal(kinds.at(-1), 'response.completed');
    const vectors = await c.embeddings.create({ model: 'text-embedding-3-small', input: 'x', dimensions: 8 });
    assert.equal(vectors.data[0].embedding.length, 8);
    const file = await c.files.create({ file: await toFile(Buffer.from('{}\n'), 'a.jsonl'), purpose: 'batch' });
    assert.equal(await (await c.files.content(file.id)).text(), '{}\n');
    assert.ok((await c.audio.transcriptions.create({ file: await toFile(Buffer.alloc(1000), 'a.wav'), model: 'whisper-1' })).text);
  });

  test(`${name}: errors`, async () => {
    for (const [from, body, options, kind, code] of [
      [client({ apiKey: 'sk-unknown' }), hello, {}, OpenAI.AuthenticationError, 'invalid_api_key'],
      [c, { ...hello, model: 'nobody-has-this' }, {}, OpenAI.NotFoundError, 'model_not_found'],
      [c, { ...hello, max_tokens: -1 }, {}, OpenAI.BadRequestError, 'invalid_value'],
      [c, { ...hello, model: 'faulty' }, simulate('status=500'), OpenAI.InternalServerError, 'server_error'],
    ]) {
      await assert.rejects(from.chat.completions.create(body, options), (e) => e instanceof kind && e.code === code && /^req_/.test(e.requestID ?? e.request_id));
    }
    await assert.rejects(async () => text(await c.chat.completions.create({ ...hello, model: 'faulty', stream: true }, simulate('truncate-after=3'))), OpenAI.APIError);
  });
}
