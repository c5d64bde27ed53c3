// node validate.mjs NODE_MODULES MODELS RENDERED.json...: every resource is one that Kubernetes takes.
//
// Types, required fields, formats and choices: the validators of kubernetes-models, compiled from Kubernetes' OpenAPI schemas.
// Those allow fields that no one knows, as the API server once did; so fields are looked up in the models of Kubernetes' own
// JavaScript client too (MODELS: its folder), which are generated from the same description.
import { createRequire } from 'node:module';
import { existsSync, readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [modules, models, ...files] = process.argv.slice(2);
const require = createRequire(modules + '/x.js');
let problems = 0;

function complain(where, what) {
	console.log(`${where}: ${what}`);
	problems++;
}

async function model(name) {
	const file = `${models}/${name}.js`;
	return existsSync(file) ? (await import(pathToFileURL(file)))[name] : undefined;
}

// Unknown fields, all the way down: "V1PodSpec", "Array<V1Container>", "{ [key: string]: string; }".
async function fields(value, type, where) {
	const list = /^Array<(.*)>$/.exec(type), map = /^\{ \[key: string\]: (.*); \}$/.exec(type);
	if (value === null || value === undefined)
		return;
	if (list) {
		for (const [i, item] of value.entries())
			await fields(item, list[1], `${where}[${i}]`);
	} else if (map) {
		for (const [name, item] of Object.entries(value))
			await fields(item, map[1], `${where}.${name}`);
	} else {
		const known = await model(type);
		if (!known?.attributeTypeMap)
			return; // a plain value
		for (const [name, item] of Object.entries(value)) {
			const attribute = known.attributeTypeMap.find((a) => a.baseName === name);
			if (!attribute)
				complain(where, `there is no field ${name} in ${type}`);
			else
				await fields(item, attribute.type, `${where}.${name}`);
		}
	}
}

async function check(doc, file) {
	const where = `${file}: ${doc.kind} ${doc.metadata?.name}`;
	const [group, version] = doc.apiVersion.includes('/') ? doc.apiVersion.split('/') : ['', doc.apiVersion];
	const type = version[0].toUpperCase() + version.slice(1) + doc.kind;
	let Kind;
	try {
		Kind = require(`kubernetes-models/${group ? group + '/' : ''}${version}/${doc.kind}`)[doc.kind];
	} catch (e) {
		complain(where, `${doc.apiVersion} has no such kind (${e.code})`);
		return;
	}
	try {
		new Kind(doc).validate();
	} catch (e) {
		complain(where, e.message);
	}
	if (!(await model(type)))
		complain(where, `there is no model ${type}`);
	await fields(doc, type, where);
}

for (const file of files)
	for (const doc of JSON.parse(readFileSync(file)))
		await check(doc, file);
process.exit(problems ? 1 : 0);
