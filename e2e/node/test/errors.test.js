import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { client, hello, rawJSON, simulate, stack, stats, user } from './stack.js';

const c = client();
const faulty = { ...hello, model: 'faulty' };

const cases = [
  ['invalid value', c, { ...hello, max_tokens: -1 }, undefined, OpenAI.BadRequestError, 400, 'invalid_value', null],
  ["the provider's 400", c, faulty, simulate('status=400'), OpenAI.BadRequestError, 400, null, null],
  ['unknown key', client({ apiKey: 'sk-unknown' }), hello, undefined, OpenAI.AuthenticationError, 401, 'invalid_api_key', null],
  ['model not allowed', client({ apiKey: stack.narrow_key }), hello, undefined, OpenAI.PermissionDeniedError, 403, 'model_not_allowed', null],
  ['unknown model', c, { ...hello, model: 'nobody-has-this' }, undefined, OpenAI.NotFoundError, 404, 'model_not_found', null],
  ["the provider's 409", c, faulty, simulate('status=409'), OpenAI.ConflictError, 409, null, null],
  ['too large', c, { ...hello, messages: user('x'.repeat(stack.max_body + 1)) }, undefined, OpenAI.APIError, 413, 'request_too_large', null],
  ["the provider's 422", c, faulty, simulate('status=422'), OpenAI.UnprocessableEntityError, 422, null, null],
  ["the provider's 429", c, { ...hello, model: 'faulty-2' }, simulate('status=429;retry-after=600'), OpenAI.InternalServerError, 503, 'upstream_capacity', 'true'],
  ['no money', c, { ...hello, model: 'faulty-3' }, simulate('insufficient-quota'), OpenAI.InternalServerError, 502, 'upstream_billing', 'false'],
  ["the provider's 500", c, faulty, simulate('status=500'), OpenAI.InternalServerError, 500, 'server_error', 'false'],
  ['wrong key of the gateway', c, { ...hello, model: 'wrong-key' }, undefined, OpenAI.InternalServerError, 502, 'upstream_credential', 'false'],
  ['nobody listens', c, { ...hello, model: 'unreachable' }, undefined, OpenAI.InternalServerError, 502, 'upstream_connect', 'false'],
  ['hanging', c, { ...hello, model: 'hanging' }, simulate('hang'), OpenAI.InternalServerError, 504, 'header_timeout', 'false'],
];
for (const [name, from, body, options, kind, status, code, retry] of cases) {
  test(name, async () => {
    await assert.rejects(from.chat.completions.create(body, options), (e) => {
      assert.ok(e instanceof kind, `${e.constructor.name}: ${e.message}`);
      assert.equal(e.status, status);
      assert.equal(e.code ?? null, code);
      assert.ok(e.type && e.error.message);
      assert.match(e.requestID, /^req_/);
      assert.equal(e.headers.get('x-should-retry'), retry);
      if (retry === 'true') {
        assert.ok(Number(e.headers.get('retry-after')) >= 1);
        assert.ok(Number(e.headers.get('retry-after-ms')) >= 1);
      }
      return true;
    });
  });
}

test('a limit of the team', async () => {
  const limited = client({ apiKey: `${stack.limited_key}-0` });
  const { response } = await limited.chat.completions.create(hello).withResponse();
  assert.equal(response.headers.get('x-ratelimit-limit-requests'), '1');
  assert.equal(response.headers.get('x-ratelimit-remaining-requests'), '0');
  await assert.rejects(limited.chat.completions.create(hello), (e) => e instanceof OpenAI.RateLimitError && e.code === 'rate_limit_exceeded' && e.type === 'requests' && /Please try again in/.test(e.message));
  const begin = Date.now();
  await client({ apiKey: `${stack.limited_key}-0`, maxRetries: 2 }).chat.completions.create(hello);
  assert.ok(Date.now() - begin < 8000);
});

test('no retries on top of retries', async () => {
  const count = async () => Object.values((await stats(stack.shaky_url)).requests['chat/completions'] ?? {}).reduce((a, b) => a + b, 0);
  const before = await count();
  await assert.rejects(client({ maxRetries: 2 }).chat.completions.create({ ...hello, model: 'shaky' }, simulate('status=500')), OpenAI.InternalServerError);
  assert.equal((await count()) - before, 3);
});

test('a fault that passes is not seen', async () => {
  const got = await c.chat.completions.create({ ...hello, model: 'fail-status' });
  assert.ok(got.choices[0].message.content);
});

for (const [name, body, message] of [
  ['a text', '{"error":"no such model"}', '404 no such model'],
  ['an array', '[{"error":{"code":404,"message":"bad","status":"NOT_FOUND"}}]', '404 bad'],
  ['a page', '<html>nginx</html>', '404 the upstream answered 404 Not Found'],
]) {
  test(`an odd error: ${name}`, async () => {
    await assert.rejects(c.chat.completions.create({ ...hello, model: 'raw' }, rawJSON(404, body)), (e) => e instanceof OpenAI.NotFoundError && e.message === message && typeof e.code === 'string');
  });
}

test('the sidecar forwards the credential', async () => {
  const own = client({ baseURL: stack.sidecar });
  assert.ok((await own.chat.completions.create({ ...hello, model: 'any' })).choices[0].message.content);
  await assert.rejects(client({ baseURL: stack.sidecar, apiKey: 'sk-wrong' }).chat.completions.create({ ...hello, model: 'any' }), OpenAI.AuthenticationError);
  await assert.rejects(own.chat.completions.create({ ...hello, model: 'any' }, simulate('insufficient-quota')), (e) => e instanceof OpenAI.RateLimitError && e.code === 'insufficient_quota');
});
