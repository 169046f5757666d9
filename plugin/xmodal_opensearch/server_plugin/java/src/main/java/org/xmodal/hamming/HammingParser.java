// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

import org.opensearch.core.common.ParsingException;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.core.xcontent.XContentParser.Token;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.QueryBuilder;

/** Parses the body of a {@code hamming} query. Throws ParsingException, with line and column, if it is invalid. */
final class HammingParser {
    private static final int MAX_CODES = 256;

    private final XContentParser parser;
    private List<String> fields;
    private List<QueryCode> codes;
    private List<String> weights;

    private HammingParser(XContentParser parser) {
        this.parser = parser;
    }

    static HammingQueryBuilder parse(HammingService service, XContentParser parser) throws IOException {
        return new HammingParser(parser).query(service);
    }

    private HammingQueryBuilder query(HammingService service) throws IOException {
        int maxDistance = HammingQueryBuilder.ANY_DISTANCE;
        QueryBuilder filter = null;
        float boost = AbstractQueryBuilder.DEFAULT_BOOST;
        String queryName = null;
        while (parser.nextToken() != Token.END_OBJECT) {
            String key = parser.currentName();
            parser.nextToken();
            switch (key) {
                case "field" -> setFields(List.of(text(key)), key);
                case "fields" -> setFields(texts(key), key);
                case "code" -> setCodes(List.of(code(key)), key);
                case "codes" -> setCodes(codes(key), key);
                case "weights" -> weights = parser.currentToken() == Token.START_ARRAY ? texts(key) : List.of(text(key));
                case "max_distance" -> maxDistance = distance(key);
                case "filter" -> {
                    expect(Token.START_OBJECT, key, "a query");
                    filter = AbstractQueryBuilder.parseInnerQueryBuilder(parser);
                }
                case "boost" -> boost = parser.floatValue();
                case "_name" -> queryName = parser.text();
                default -> throw error("unknown key [" + key + "]; expected field or fields, code or codes, weights, max_distance, filter, boost, _name");
            }
        }
        if (fields == null) {
            throw error("requires [field] or [fields]");
        }
        if (codes == null) {
            throw error("requires [code] or [codes]");
        }
        if (weights != null && weights.size() != codes.size()) {
            throw error("[weights] has " + weights.size() + " texts, expected " + codes.size() + ": one per code");
        }
        return new HammingQueryBuilder(service, fields, codes, weights == null ? List.of() : weights, maxDistance, filter).boost(boost).queryName(queryName);
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

    private String text(String key) throws IOException {
        expect(Token.VALUE_STRING, key, key.equals("weights") ? "hexadecimal digits, a text per code" : "a name");
        return parser.text();
    }

    private List<String> texts(String key) throws IOException {
        expect(Token.START_ARRAY, key, "a list of names");
        List<String> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            found.add(text(key));
        }
        return found;
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
                return QueryCode.ofBytes(bytes(key));
            default:
                throw error("[" + key + "] must be hex, base64 or a list of integers from -128 to 127");
        }
    }

    private byte[] bytes(String key) throws IOException {
        List<Integer> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
            if (number == null || number.doubleValue() != number.byteValue()) {
                throw error("[" + key + "] must be a list of integers from -128 to 127, found " + parser.textOrNull()
                    + (key.equals("code") ? " (use [codes] for several codes)" : ""));
            }
            found.add(number.intValue());
        }
        byte[] bytes = new byte[found.size()];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = found.get(i).byteValue();
        }
        return bytes;
    }

    private int distance(String key) throws IOException {
        Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
        if (number == null || number.doubleValue() != number.intValue() || number.intValue() < 0) {
            throw error("[" + key + "] must be an integer of 0 or more, found " + parser.textOrNull());
        }
        return number.intValue();
    }

    private void expect(Token token, String key, String what) {
        if (parser.currentToken() != token) {
            throw error("[" + key + "] must be " + what);
        }
    }

    private ParsingException error(String message) {
        return new ParsingException(parser.getTokenLocation(), "[" + HammingQueryBuilder.NAME + "] " + message);
    }
}
