// The official client against a running server: BASE_URL and MODEL say where. Exits 0 when every check holds.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL + "/v1", apiKey: "none", maxRetries: 0 });
const model = process.env.MODEL;
const messages = [
  { role: "system", content: "你是系统助手" },
  { role: "user", content: [{ type: "text", text: "uptime?" }] },
];

async function metric(name) {
  const text = await (await fetch(process.env.BASE_URL + "/metrics")).text();
  return Number(text.match(new RegExp(`^ocai_engine_${name} (.*)$`, "m"))[1]);
}

async function rejects(promise, status, param) {
  await assert.rejects(promise, (e) => {
    assert.ok(e instanceof OpenAI.APIError, String(e));
    assert.equal(e.status, status);
    assert.equal(e.param, param);
    assert.ok(e.message.length > 10);
    return true;
  });
}

const checks = {
  async models() {
    const list = await client.models.list();
    assert.equal(list.data[0].id, model);
    assert.equal((await client.models.retrieve(model)).id, model);
    await rejects(client.models.retrieve("nope"), 404, "model");
  },

  async chat_whole_and_streamed_agree() {
    const body = { model, messages, max_tokens: 32, temperature: 0 };
    const whole = await client.chat.completions.create(body);
    assert.equal(whole.choices[0].message.role, "assistant");
    assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);

    const stream = await client.chat.completions.create({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "", roles = 0, finish = [], usage = null;
    for await (const chunk of stream) {
      const choice = chunk.choices[0];
      if (!choice) {
        usage = chunk.usage;
        continue;
      }
      if (choice.delta.role) roles++;
      if (choice.finish_reason) finish.push(choice.finish_reason);
      text += choice.delta.content ?? "";
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(roles, 1);
    assert.deepEqual(finish, [whole.choices[0].finish_reason]);
    assert.deepEqual(usage, whole.usage);
  },

  async the_stream_helper_accumulates() {
    const runner = client.chat.completions.stream({ model, messages, max_tokens: 16, temperature: 0 });
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.content, await runner.finalContent());
  },

  async logprobs() {
    const r = await client.chat.completions.create({
      model, messages, max_tokens: 5, temperature: 0, logprobs: true, top_logprobs: 4,
    });
    for (const entry of r.choices[0].logprobs.content) {
      assert.equal(entry.top_logprobs.length, 4);
      assert.equal(entry.logprob, entry.top_logprobs[0].logprob);
      assert.ok(Array.isArray(entry.bytes));
    }
  },

  async completions() {
    const r = await client.completions.create({ model, prompt: ["a", "b"], max_tokens: 4, temperature: 0 });
    assert.equal(r.choices.length, 2);
    assert.equal(r.object, "text_completion");
  },

  async errors() {
    await rejects(client.chat.completions.create({ model, messages, temperature: "hot" }), 400, "temperature");
    await rejects(client.chat.completions.create({ model, messages: [] }), 400, "messages");
    await rejects(client.chat.completions.create({ model, messages, response_format: { type: "json_object" } }), 400,
      "response_format");
    await rejects(client.completions.create({ model, prompt: Array(5000).fill(70), max_tokens: 1 }), 400, null);
  },

  async embeddings_by_default_encoding() {
    const r = await client.embeddings.create({ model, input: ["uptime", "重启"] });
    assert.equal(r.data.length, 2);
    const plain = await client.embeddings.create({ model, input: "uptime", encoding_format: "float" });
    const v = r.data[0].embedding;
    assert.equal(v.length, plain.data[0].embedding.length);
    v.forEach((x, i) => assert.ok(Math.abs(x - plain.data[0].embedding[i]) < 1e-6));
    assert.ok(Math.abs(Math.hypot(...v) - 1) < 1e-5);
  },

  async leaving_a_stream_aborts_the_request() {
    const aborted = await metric("requests_aborted_total");
    const stream = await client.chat.completions.create({
      model, messages, stream: true, n: 4, max_tokens: 1900, ignore_eos: true,
    });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    for (let i = 0; i < 200 && (await metric("requests_running")) > 0; i++) await new Promise((r) => setTimeout(r, 25));
    assert.equal(await metric("requests_running"), 0);
    assert.ok((await metric("requests_aborted_total")) > aborted);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
