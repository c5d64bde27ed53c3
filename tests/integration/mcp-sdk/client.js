// The official client drives `ocai mcp serve`.
import assert from 'node:assert';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const [ocai, file, lang] = process.argv.slice(2);
const transport = new StdioClientTransport({ command: ocai, args: ['mcp', 'serve', '--lang', lang], env: process.env });
const client = new Client({ name: 'test', version: '1' }, { capabilities: {} });
await client.connect(transport);

assert.equal(client.getServerVersion().name, 'ocai');
assert.deepEqual(client.getServerCapabilities(), { tools: { listChanged: false } });
await client.ping();

const { tools } = await client.listTools();
const names = tools.map(t => t.name);
for (const name of ['kb_search', 'read_file', 'man_page', 'list_processes', 'disk_usage', 'system_facts', 'perf_sample',
	'unit_log', 'package_info', 'package_owner', 'package_verify', 'package_history'])
	assert.ok(names.includes(name), name);
for (const tool of tools) {
	assert.equal(tool.inputSchema.type, 'object');
	assert.equal(tool.annotations.readOnlyHint, true);
	assert.equal(/[\u4e00-\u9fff]/.test(tool.description), lang === 'zh', tool.description);
}

const text = async (name, args) => {
	const r = await client.callTool({ name, arguments: args });
	assert.equal(r.content[0].type, 'text');
	return [r.content[0].text, r.isError];
};
assert.deepEqual(await text('read_file', { path: file, line: 2, count: 1 }), ['第二行\n[more follows: line 3]\n', false]);
assert.deepEqual((await text('read_file', { path: '/etc/shadow' }))[1], true);
assert.match((await text('read_file', { path: 'relative' }))[0], /absolute/);
assert.match((await text('read_file', { path: file, lines: 3 }))[0], /unknown argument 'lines'/);
assert.match((await text('disk_usage', { path: '/' }))[0], / on \/ /);
assert.match((await text('list_processes', { limit: 2 }))[0], /PID/);
assert.match((await text('system_facts', { section: 'host' }))[0], /kernel|内核/);
assert.match((await text('system_facts', { section: 'all' }))[0], /not one of the choices/);
assert.match((await text('perf_sample', { seconds: 1 }))[0], /findings|发现/);
assert.match((await text('unit_log', { unit: '../x' }))[0], /not the name of a unit/);
assert.match((await text('package_owner', { path: 'x' }))[0], /absolute/);
assert.match((await text('kb_search', { query: '磁盘' }))[0], /^\[1\] .*disk.md:1/);
await assert.rejects(client.callTool({ name: 'nothing', arguments: {} }), e => e.code === -32602 || /unknown tool/.test(e.message));
await assert.rejects(client.request({ method: 'resources/list', params: {} }, { parse: x => x, safeParse: x => ({ success: true, data: x }) }));

// Many at once: each gets its own answer.
const many = await Promise.all([...Array(20).keys()].map(i => text('read_file', { path: file, line: i % 3 + 1, count: 1 })));
many.forEach(([t], i) => assert.ok(t.startsWith(['first', '第二行', 'third'][i % 3]), t));
await client.close();
console.log(`client ok (${lang})`);
