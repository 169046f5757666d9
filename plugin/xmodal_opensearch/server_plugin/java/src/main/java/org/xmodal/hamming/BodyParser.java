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

/** Parses the body of a query. Methods throw ParsingException, with line and column, if a value is invalid. */
abstract class BodyParser {
    final XContentParser parser;
    private final String name;
    private final String keys;
    private float boost = AbstractQueryBuilder.DEFAULT_BOOST;
    private String queryName;

    /**
     * @param name name of the query, which errors begin with
     * @param keys the keys that {@link #value} accepts, for the error about any other key
     */
    BodyParser(XContentParser parser, String name, String keys) {
        this.parser = parser;
        this.name = name;
        this.keys = keys;
    }

    /** Parses the value of a key, whose first token is the current one; returns false for an unknown key. */
    abstract boolean value(String key) throws IOException;

    /** Parses the whole body. */
    final void parseBody() throws IOException {
        while (parser.nextToken() != Token.END_OBJECT) {
            String key = parser.currentName();
            parser.nextToken();
            switch (key) {
                case "boost" -> boost = boost();
                case "_name" -> queryName = queryName();
                default -> {
                    if (!value(key)) {
                        throw error("unknown key [" + key + "]; expected " + keys + ", boost, _name");
                    }
                }
            }
        }
    }

    /** Sets the boost and the name that the body has on a query. */
    final <Q extends AbstractQueryBuilder<Q>> Q withBoostAndName(Q query) {
        return query.boost(boost).queryName(queryName);
    }

    private float boost() throws IOException {
        Token token = parser.currentToken();
        if (token == Token.VALUE_NUMBER || token == Token.VALUE_STRING) {
            float value = parser.floatValue();
            if (value >= 0 && value < Float.POSITIVE_INFINITY) {
                return value;
            }
        }
        throw error("[boost] must be a finite number of 0 or more, found " + found());
    }

    private String queryName() throws IOException {
        if (!isScalar()) {
            throw error("[_name] must be a text, found " + found());
        }
        return parser.text();
    }

    final String text(String key, String what) throws IOException {
        expect(Token.VALUE_STRING, key, what);
        return parser.text();
    }

    final boolean bool(String key) throws IOException {
        expect(Token.VALUE_BOOLEAN, key, "true or false");
        return parser.booleanValue();
    }

    final QueryBuilder query(String key) throws IOException {
        expect(Token.START_OBJECT, key, "a query");
        return AbstractQueryBuilder.parseInnerQueryBuilder(parser);
    }

    /** A list of integers from -128 to 127, as bytes. */
    final byte[] bytes(String key, String hint) throws IOException {
        List<Byte> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
            if (number == null || number.doubleValue() != number.byteValue()) {
                throw error("[" + key + "] must be a list of integers from -128 to 127, found " + found() + hint);
            }
            found.add(number.byteValue());
        }
        byte[] bytes = new byte[found.size()];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = found.get(i);
        }
        return bytes;
    }

    /** An integer from min to max. */
    final int integer(String key, int min, int max, String range) throws IOException {
        Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
        if (number == null || number.doubleValue() != number.intValue() || number.intValue() < min || number.intValue() > max) {
            throw error("[" + key + "] must be an integer " + range + ", found " + found());
        }
        return number.intValue();
    }

    final void expect(Token token, String key, String what) throws IOException {
        if (parser.currentToken() != token) {
            throw error("[" + key + "] must be " + what + ", found " + found());
        }
    }

    /** The current value, or the kind of its token if it is no number, text or truth value. */
    private String found() throws IOException {
        return isScalar() ? parser.text() : String.valueOf(parser.currentToken());
    }

    private boolean isScalar() {
        Token token = parser.currentToken();
        return token == Token.VALUE_STRING || token == Token.VALUE_NUMBER || token == Token.VALUE_BOOLEAN;
    }

    final ParsingException error(String message) {
        return new ParsingException(parser.getTokenLocation(), "[" + name + "] " + message);
    }
}
