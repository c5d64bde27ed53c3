// The official client against a running server: BASE_URL and MODEL say where. Exits 0 when every check holds.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.BASE_URL, apiKey: "none", maxRetries: 0 });
const model = process.env.MODEL;
const messages = [{ role: "user", content: "uptime?" }];
const tools = [
  { name: "get_weather", description: "Weather of some days",
    input_schema: { type: "object", properties: { days: { enum: [1, 2, 3] } }, required: ["days"], additionalProperties: false } },
];

async function metric(name) {
  const text = await (await fetch(process.env.BASE_URL + "/metrics")).text();
  return Number(text.match(new RegExp(`^ocai_engine_${name} (.*)$`, "m"))[1]);
}

const checks = {
  async a_message() {
    const m = await client.messages.create({ model, max_tokens: 12, messages, system: [{ type: "text", text: "你是系统助手" }] });
    assert.equal(m.type, "message");
    assert.equal(m.role, "assistant");
    assert.ok(["max_tokens", "end_turn"].includes(m.stop_reason));
    assert.ok(m.usage.input_tokens + m.usage.cache_read_input_tokens > 0);
    assert.ok(m.usage.output_tokens <= 12);
  },

  async a_stream_accumulates_to_the_message() {
    const body = { model, max_tokens: 24, messages, temperature: 0 };
    const whole = await client.messages.create(body);
    const stream = client.messages.stream(body);
    let text = "";
    stream.on("text", (t) => (text += t));
    const final = await stream.finalMessage();
    assert.deepEqual(final.content, whole.content);
    assert.equal(text, whole.content.filter((b) => b.type === "text").map((b) => b.text).join(""));
    assert.equal(final.stop_reason, whole.stop_reason);
    assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  },

  async stop_sequences() {
    const whole = await client.messages.create({ model, max_tokens: 24, messages, temperature: 0 });
    const text = whole.content.find((b) => b.type === "text").text;
    const stop = [...text.trim()].slice(2, 4).join("");
    const m = await client.messages.create({ model, max_tokens: 24, messages, temperature: 0, stop_sequences: [stop] });
    assert.equal(m.stop_reason, "stop_sequence");
    assert.equal(m.stop_sequence, stop);
    assert.ok(!m.content.some((b) => b.type === "text" && b.text.includes(stop)));
  },

  async a_forced_tool_whole_and_streamed() {
    const body = { model, max_tokens: 1900, messages, tools, tool_choice: { type: "tool", name: "get_weather" } };
    const m = await client.messages.create(body);
    assert.equal(m.stop_reason, "tool_use");
    assert.equal(m.content[0].type, "tool_use");
    assert.equal(m.content[0].name, "get_weather");
    assert.ok([1, 2, 3].includes(m.content[0].input.days));

    const s = await client.messages.stream({ ...body, tool_choice: { type: "any" } }).finalMessage();
    const use = s.content.find((b) => b.type === "tool_use");
    assert.ok([1, 2, 3].includes(use.input.days));

    const next = await client.messages.create({
      model, max_tokens: 8, tools,
      messages: [...messages, { role: "assistant", content: m.content },
        { role: "user", content: [{ type: "tool_result", tool_use_id: m.content[0].id, content: "rain" }] }],
    });
    assert.equal(next.type, "message");
  },

  async structured_output() {
    const schema = { type: "object", properties: { on: { type: "boolean" } }, required: ["on"], additionalProperties: false };
    const body = { model, max_tokens: 600, messages, output_config: { format: { type: "json_schema", schema } } };
    const m = await client.messages.create(body);
    assert.equal(typeof JSON.parse(m.content[0].text).on, "boolean");
    const s = await client.messages.stream(body).finalMessage();
    assert.equal(typeof JSON.parse(s.content[0].text).on, "boolean");
    const p = await client.messages.parse({ ...body, output_config: { format: { ...body.output_config.format, parse: JSON.parse } } });
    assert.equal(typeof p.parsed_output.on, "boolean");
  },

  async counting() {
    const n = await client.messages.countTokens({ model, messages });
    const m = await client.messages.create({ model, max_tokens: 1, messages });
    assert.equal(n.input_tokens, m.usage.input_tokens + m.usage.cache_read_input_tokens);
  },

  async errors() {
    await assert.rejects(client.messages.create({ model, max_tokens: 1, messages: [] }), (e) => {
      assert.ok(e instanceof Anthropic.BadRequestError, String(e));
      assert.equal(e.error.error.type, "invalid_request_error");
      return true;
    });
    await assert.rejects(
      client.messages.create({ model, max_tokens: 1, messages: [{ role: "user", content: "x ".repeat(20000) }] }),
      (e) => e instanceof Anthropic.BadRequestError && /tokens/.test(e.message));
    await assert.rejects(
      client.messages.create({ model, max_tokens: 1, messages: [{ role: "user", content: [
        { type: "image", source: { type: "base64", media_type: "image/png", data: "" } }] }] }),
      (e) => e instanceof Anthropic.BadRequestError && /messages\[0\]\.content\[0\].*image/.test(e.message));
    await assert.rejects(
      client.messages.create({ model, max_tokens: 1, messages, output_config: { format: { type: "poem" } } }),
      (e) => e instanceof Anthropic.BadRequestError && /output_config\.format/.test(e.message));
  },

  async leaving_a_stream_aborts_the_request() {
    const aborted = await metric("requests_aborted_total");
    // The whole answer may be on its way before we are through with its beginning: then once more.
    for (let n = 0; n < 40 && (await metric("requests_aborted_total")) === aborted; n++) {
      const stream = client.messages.stream({ model, max_tokens: 1900, messages, ignore_eos: true, temperature: 1 });
      stream.on("error", () => {});
      for await (const event of stream) {
        if (event.type === "content_block_delta") break;
      }
      stream.controller.abort();
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
