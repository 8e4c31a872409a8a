import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { client, rawJSON, record, recorded, stack } from './stack.js';

const c = client();

test('embeddings', async () => {
  const ask = { model: 'text-embedding-3-small', input: ['one', 'two'], dimensions: 16 };
  const floats = await c.embeddings.create({ ...ask, encoding_format: 'float' });
  const packed = await c.embeddings.create(ask, record('node-embeddings'));
  assert.equal(JSON.parse((await recorded(stack.main_url, 'node-embeddings')).body).encoding_format, 'base64');
  assert.equal(packed.data[1].embedding.length, 16);
  packed.data[1].embedding.forEach((x, i) => assert.ok(Math.abs(x - floats.data[1].embedding[i]) < 1e-6));
  assert.ok(packed.usage.prompt_tokens > 0);
});

// The SDK asks for base64 and reads anything else as an empty vector.
test('embeddings of an upstream that does not know base64', async () => {
  const reply = { object: 'list', data: [{ object: 'embedding', index: 0, embedding: [0.5, -1.25, 3] }], model: 'raw', usage: { prompt_tokens: 1, total_tokens: 1 } };
  const got = await c.embeddings.create({ model: 'raw', input: 'x' }, rawJSON(200, reply));
  assert.deepEqual([...got.data[0].embedding], [0.5, -1.25, 3]);
  const big = { ...reply, data: Array.from({ length: 100 }, (_, index) => ({ object: 'embedding', index, embedding: Array.from({ length: 10 }, (_, j) => index / 8 + j) })) };
  const many = await c.embeddings.create({ model: 'raw', input: 'x' }, rawJSON(200, big));
  assert.deepEqual([...many.data[99].embedding], big.data[99].embedding);
});

for (const size of [100, 600 << 10, 3 << 20]) {
  test(`file of ${size} bytes`, async () => {
    const content = Buffer.alloc(size, '0123456789\n');
    const file = await c.files.create({ file: await toFile(content, 'notes.jsonl'), purpose: 'user_data', expires_after: { anchor: 'created_at', seconds: 3600 } });
    assert.equal(file.bytes, size);
    assert.equal((await c.files.retrieve(file.id)).filename, 'notes.jsonl');
    const ids = [];
    for await (const f of c.files.list()) ids.push(f.id);
    assert.ok(ids.includes(file.id));
    if (size <= 1 << 20) assert.ok(Buffer.from(await (await c.files.content(file.id)).arrayBuffer()).equals(content));
    assert.equal((await c.files.delete(file.id)).deleted, true);
    await assert.rejects(c.files.retrieve(file.id), OpenAI.NotFoundError);
  });
}

test('speech', async () => {
  const ask = { model: 'tts-1', input: 'Hello there', voice: 'alloy', response_format: 'wav' };
  const resp = await c.audio.speech.create(ask);
  const sound = Buffer.from(await resp.arrayBuffer());
  assert.equal(resp.headers.get('content-type'), 'audio/wav');
  assert.equal(sound.subarray(0, 4).toString(), 'RIFF');
  const direct = client({ baseURL: `${stack.main_url}/v1`, apiKey: stack.upstream_key });
  assert.ok(Buffer.from(await (await direct.audio.speech.create(ask)).arrayBuffer()).equals(sound));
  const streamed = await c.audio.speech.create({ ...ask, stream_format: 'sse' });
  assert.match(await streamed.text(), /speech\.audio\.done/);
});

test('transcription', async () => {
  const file = () => toFile(Buffer.alloc(50_000), 'speech.wav');
  const got = await c.audio.transcriptions.create({ file: await file(), model: 'whisper-1' });
  assert.ok(got.text);
  let seen = '';
  for await (const e of await c.audio.transcriptions.create({ file: await file(), model: 'whisper-1', stream: true })) {
    if (e.type === 'transcript.text.delta') seen += e.delta;
  }
  assert.equal(seen, got.text);
  assert.match(await c.audio.transcriptions.create({ file: await file(), model: 'whisper-1', response_format: 'srt' }), /-->/);
  assert.ok((await c.audio.translations.create({ file: await file(), model: 'whisper-1' })).text);
});

test('images', async () => {
  const got = await c.images.generate({ model: 'gpt-image-1', prompt: 'a dam', n: 2 });
  assert.equal(got.data.length, 2);
  const edited = await c.images.edit({ model: 'gpt-image-1', prompt: 'a dam', image: [await toFile(Buffer.from('one'), 'one.png'), await toFile(Buffer.from('two'), 'two.png')] });
  assert.ok(edited.data[0].b64_json);
  const kinds = [];
  for await (const e of await c.images.generate({ model: 'gpt-image-1', prompt: 'a dam', stream: true, partial_images: 2 })) kinds.push(e.type);
  assert.deepEqual(kinds, ['image_generation.partial_image', 'image_generation.partial_image', 'image_generation.completed']);
});

test('moderations', async () => {
  for (const model of ['omni-moderation-latest', undefined]) {
    const got = await c.moderations.create({ model, input: ['peace', 'violence'] });
    assert.deepEqual(got.results.map((r) => r.flagged), [false, true]);
  }
});

test('models', async () => {
  const ids = (await c.models.list()).data.map((m) => m.id);
  assert.ok(ids.includes('gpt-4o') && ids.includes('alias') && !ids.includes('gpt-4o-mini-2024'));
  assert.equal((await c.models.retrieve('alias')).id, 'alias');
  await assert.rejects(c.models.retrieve('nobody/has-this'), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
});

test('completions', async () => {
  const ask = { model: 'gpt-3.5-turbo-instruct', prompt: 'Once', max_tokens: 5 };
  const whole = await c.completions.create(ask);
  assert.equal(whole.choices[0].finish_reason, 'length');
  let seen = '';
  for await (const chunk of await c.completions.create({ ...ask, stream: true })) seen += chunk.choices[0].text;
  assert.equal(seen, whole.choices[0].text);
});
