// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.core.xcontent.XContentParser.Token;

/** Parses the body of a {@code hamming} query. Throws ParsingException, with line and column, if it is invalid. */
final class HammingParser extends FilteredQueryBuilder.Parser {
    private static final int MAX_CODES = 256;

    private List<String> fields;
    private List<QueryCode> codes;
    private List<String> weights;
    private int maxDistance = HammingQueryBuilder.ANY_DISTANCE;

    private HammingParser(XContentParser parser) {
        super(parser, HammingQueryBuilder.NAME, "field or fields, code or codes, weights, max_distance");
    }

    static HammingQueryBuilder parse(HammingService service, XContentParser parser) throws IOException {
        return new HammingParser(parser).query(service);
    }

    private HammingQueryBuilder query(HammingService service) throws IOException {
        parseBody();
        if (fields == null) {
            throw error("requires [field] or [fields]");
        }
        if (codes == null) {
            throw error("requires [code] or [codes]");
        }
        if (weights != null && weights.size() != codes.size()) {
            throw error("[weights] has " + weights.size() + " texts, expected " + codes.size() + ": one per code");
        }
        List<String> given = weights == null ? List.of() : weights;
        return withBoostAndName(new HammingQueryBuilder(service, fields, codes, given, maxDistance, filter, ignoreUnmapped));
    }

    @Override
    boolean value(String key) throws IOException {
        switch (key) {
            case "field" -> setFields(List.of(text(key, "a name")), key);
            case "fields" -> setFields(texts(key, "a name"), key);
            case "code" -> setCodes(List.of(code(key)), key);
            case "codes" -> setCodes(codes(key), key);
            case "weights" -> weights = weights(key);
            case "max_distance" -> maxDistance = integer(key, 0, HammingQueryBuilder.ANY_DISTANCE, "of 0 or more");
            default -> {
                return super.value(key);
            }
        }
        return true;
    }

    private void setFields(List<String> given, String key) {
        if (fields != null || given.isEmpty()) {
            throw error(given.isEmpty() ? "[" + key + "] is empty" : "accepts one of [field] and [fields], once");
        }
        fields = given;
    }

    private void setCodes(List<QueryCode> given, String key) {
        if (codes != null || given.isEmpty()) {
            throw error(given.isEmpty() ? "[" + key + "] is empty" : "accepts one of [code] and [codes], once");
        }
        codes = given;
    }

    private List<String> texts(String key, String what) throws IOException {
        expect(Token.START_ARRAY, key, "a list of names");
        List<String> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            found.add(text(key, what));
        }
        return found;
    }

    private List<String> weights(String key) throws IOException {
        String what = "hexadecimal digits, a text per code";
        return parser.currentToken() == Token.START_ARRAY ? texts(key, what) : List.of(text(key, what));
    }

    private List<QueryCode> codes(String key) throws IOException {
        expect(Token.START_ARRAY, key, "a list of codes");
        List<QueryCode> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            found.add(code(key));
        }
        if (found.size() > MAX_CODES) {
            throw error("[" + key + "] has " + found.size() + " codes, expected at most " + MAX_CODES);
        }
        return found;
    }

    private QueryCode code(String key) throws IOException {
        switch (parser.currentToken()) {
            case VALUE_STRING:
                return QueryCode.ofText(parser.text());
            case VALUE_EMBEDDED_OBJECT:
                return QueryCode.ofBytes(parser.binaryValue());
            case START_ARRAY:
                return QueryCode.ofBytes(bytes(key, key.equals("code") ? " (use [codes] for several codes)" : ""));
            default:
                throw error("[" + key + "] must be hex, base64 or a list of integers from -128 to 127");
        }
    }
}
