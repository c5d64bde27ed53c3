// The official client against a running server: BASE_URL and MODEL say where. Exits 0 when every check holds.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL + "/v1", apiKey: "none", maxRetries: 0 });
const model = process.env.MODEL;
const messages = [
  { role: "system", content: "你是系统助手" },
  { role: "user", content: [{ type: "text", text: "uptime?" }] },
];

const tools = [
  { type: "function", function: { name: "get_weather", description: "Weather of some days",
    parameters: { type: "object", properties: { days: { enum: [1, 2, 3] } }, required: ["days"], additionalProperties: false } } },
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
    assert.equal(usage.prompt_tokens, whole.usage.prompt_tokens);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
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
    await rejects(client.chat.completions.create({ model, messages, response_format: { type: "poem" } }), 400,
      "response_format");
    await rejects(client.chat.completions.create({ model, messages: [{ role: "user", content: [
      { type: "text", text: "what is it?" }, { type: "image_url", image_url: { url: "data:image/png;base64," } }] }] }), 400,
      "messages[0].content[1]");
    await rejects(client.completions.create({ model, prompt: Array(5000).fill(70), max_tokens: 1 }), 400, null);
  },

  async forced_tools_whole_and_streamed() {
    const body = { model, messages, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 1900 };
    const r = await client.chat.completions.create(body);
    assert.equal(r.choices[0].finish_reason, "tool_calls");
    const call = r.choices[0].message.tool_calls[0];
    assert.ok([1, 2, 3].includes(JSON.parse(call.function.arguments).days));

    const runner = client.chat.completions.stream({ ...body, tool_choice: { type: "function", function: { name: "get_weather" } } });
    const final = await runner.finalChatCompletion();
    const streamed = final.choices[0].message.tool_calls[0];
    assert.equal(streamed.function.name, "get_weather");
    assert.ok([1, 2, 3].includes(JSON.parse(streamed.function.arguments).days));

    const next = await client.chat.completions.create({
      model, tools, max_tokens: 8,
      messages: [...messages, r.choices[0].message, { role: "tool", tool_call_id: call.id, content: "rain" }],
    });
    assert.equal(next.choices[0].message.role, "assistant");
  },

  async structured_output() {
    const schema = { type: "object", properties: { on: { type: "boolean" } }, required: ["on"], additionalProperties: false };
    const r = await client.chat.completions.create({
      model, messages, max_tokens: 600, response_format: { type: "json_schema", json_schema: { name: "state", schema, strict: true } },
    });
    assert.equal(typeof JSON.parse(r.choices[0].message.content).on, "boolean");
    const v = await client.responses.create({
      model, input: "is it on?", max_output_tokens: 600, text: { format: { type: "json_schema", name: "state", schema, strict: true } },
    });
    assert.equal(typeof JSON.parse(v.output_text).on, "boolean");
  },

  async responses_whole_streamed_and_continued() {
    const body = { model, input: "uptime?", instructions: "be brief", max_output_tokens: 16, temperature: 0 };
    const whole = await client.responses.create(body);
    assert.ok(["completed", "incomplete"].includes(whole.status));
    assert.deepEqual((await client.responses.retrieve(whole.id)).output, whole.output);
    const stream = client.responses.stream(body);
    let text = "";
    stream.on("response.output_text.delta", (e) => (text += e.delta));
    const final = await stream.finalResponse();
    assert.equal(text, whole.output_text);
    assert.equal(final.output_text, whole.output_text);
    const next = await client.responses.create({ model, previous_response_id: whole.id, input: "and now?", max_output_tokens: 4 });
    assert.equal(next.previous_response_id, whole.id);
    assert.ok(next.usage.input_tokens > whole.usage.input_tokens);
    const forced = await client.responses.create({
      model, input: "weather?", max_output_tokens: 1900, tool_choice: { type: "function", name: "get_weather" },
      tools: [{ type: "function", ...tools[0].function }],
    });
    const call = forced.output.find((i) => i.type === "function_call");
    assert.ok([1, 2, 3].includes(JSON.parse(call.arguments).days));
    await rejects(client.responses.create({ model, previous_response_id: "resp_x", input: "x" }), 404, "previous_response_id");
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
    // The whole answer may be on its way before we are through with its beginning: then once more.
    for (let n = 0; n < 40 && (await metric("requests_aborted_total")) === aborted; n++) {
      const stream = await client.chat.completions.create({
        model, messages, stream: true, n: 4, max_tokens: 1900, ignore_eos: true,
      });
      for await (const chunk of stream) {
        if (chunk.choices[0]?.delta.content) break;
      }
      for (let i = 0; i < 2400 && (await metric("requests_running")) > 0; i++) await new Promise((r) => setTimeout(r, 25));
    }
    assert.equal(await metric("requests_running"), 0);
    assert.ok((await metric("requests_aborted_total")) > aborted);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
