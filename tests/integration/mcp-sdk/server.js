// A server made with the official SDK, for `ocai mcp list` and `call`: over stdio, or over HTTP when a port file is named.
import { writeFileSync, renameSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { CallToolRequestSchema, EmptyResultSchema, ListToolsRequestSchema } from '@modelcontextprotocol/sdk/types.js';

const portFile = process.argv[2], json = process.argv[3] === 'json';

function makeServer() {
	const server = new Server({ name: 'sdk', version: '1' }, { capabilities: { tools: {}, logging: {} } });
	server.setRequestHandler(ListToolsRequestSchema, async request => {
		const page = Number(request.params?.cursor ?? 0);
		const tool = name => ({ name, description: `tool ${name} 工具`, inputSchema: { type: 'object' } });
		return page ? { tools: [tool('slow'), tool('fail')] } : { tools: [tool('echo'), tool('env')], nextCursor: '1' };
	});
	server.setRequestHandler(CallToolRequestSchema, async (request, extra) => {
		const { name, arguments: args } = request.params;
		if (name === 'echo') {
			if (!json) // JSON answers have no room for requests of the server's own
				await extra.sendRequest({ method: 'ping' }, EmptyResultSchema);
			await extra.sendNotification({ method: 'notifications/message', params: { level: 'info', data: 'working' } });
			return { content: [{ type: 'text', text: JSON.stringify(args) }, { type: 'image', data: 'AA==', mimeType: 'image/png' }] };
		}
		if (name === 'env')
			return { content: [{ type: 'text', text: `${process.env.OCAI_TEST} ${process.argv[2] ?? ''}` }] };
		if (name === 'slow') {
			await new Promise(resolve => {
				const timer = setTimeout(resolve, 120000);
				extra.signal.addEventListener('abort', () => { clearTimeout(timer); console.error('aborted'); resolve(); });
			});
			if (process.env.OCAI_TEST_ABORTED && extra.signal.aborted)
				writeFileSync(process.env.OCAI_TEST_ABORTED, 'aborted\n');
			return { content: [] };
		}
		if (name === 'fail')
			return { content: [{ type: 'text', text: 'it failed' }], isError: true };
		throw new Error('no such tool');
	});
	return server;
}

console.error('noise on standard error');
if (!portFile || portFile === '-') {
	await makeServer().connect(new StdioServerTransport());
} else {
	const sessions = new Map();
	const listener = http.createServer(async (req, res) => {
		let transport = sessions.get(req.headers['mcp-session-id']);
		if (!transport) {
			transport = new StreamableHTTPServerTransport({
				sessionIdGenerator: () => randomUUID(),
				enableJsonResponse: json,
				onsessioninitialized: id => { sessions.set(id, transport); },
			});
			await makeServer().connect(transport);
		}
		await transport.handleRequest(req, res);
		if (req.method === 'DELETE')
			writeFileSync(`${portFile}.deleted`, 'yes\n');
	});
	listener.listen(0, '127.0.0.1', () => {
		writeFileSync(`${portFile}.new`, `${listener.address().port}\n`);
		renameSync(`${portFile}.new`, portFile);
	});
}
