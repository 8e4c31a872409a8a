import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AzureOpenAI } from 'openai';
import { client, hello, model, record, recorded, stack, text } from './stack.js';

test('headers arrive, credentials do not', async () => {
  const c = client({ organization: 'org-theirs', project: 'proj-theirs', defaultHeaders: { 'OpenAI-Beta': 'agents=v1', 'X-Odd': 'a  b; c="d"', Cookie: 's=1' } });
  const { response } = await c.chat.completions.create(hello, record('node-headers')).withResponse();
  const got = (await recorded(stack.main_url, 'node-headers')).header;
  assert.deepEqual(got.Authorization, [`Bearer ${stack.upstream_key}`]);
  assert.deepEqual(got['Openai-Beta'], ['agents=v1']);
  assert.deepEqual(got['X-Odd'], ['a  b; c="d"']);
  for (const gone of ['Cookie', 'Openai-Organization', 'Openai-Project', 'Accept-Encoding']) assert.equal(got[gone], undefined, gone);
  assert.match(got['User-Agent'][0], /^OpenAI\/JS/);
  assert.equal(response.headers.get('x-custom-reply'), 'from the provider');
  assert.ok(![...response.headers.values()].some((v) => v.includes(stack.upstream_key)));
});

test('base URLs that people write', async () => {
  const root = stack.base_url.replace(/\/v1$/, '');
  for (const baseURL of [root, `${root}/`, `${root}/v1/`, `${root}/v1/v1`, `${root}/openai/v1`]) {
    assert.ok((await client({ baseURL }).chat.completions.create(hello)).choices[0].message.content, baseURL);
  }
});

test("Azure's client", async () => {
  const c = new AzureOpenAI({ endpoint: stack.base_url.replace(/\/v1$/, ''), apiKey: stack.client_key, apiVersion: '2024-10-21', maxRetries: 0 });
  const got = await c.chat.completions.create(hello, record('node-azure'));
  assert.ok(got.choices[0].message.content);
  const rec = await recorded(stack.main_url, 'node-azure');
  assert.equal(rec.path, '/v1/chat/completions');
  assert.equal(rec.header['Api-Key'], undefined);
  assert.ok(await text(await c.chat.completions.create({ ...hello, stream: true })));
  assert.equal((await c.embeddings.create({ model: 'text-embedding-3-small', input: 'x', dimensions: 4 })).data[0].embedding.length, 4);
  assert.ok((await c.models.list()).data.some((m) => m.id === model));
});
